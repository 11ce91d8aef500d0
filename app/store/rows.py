"""Database rows to records: the column lists, once, in the records' own order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields
from typing import Any

from app.domain.models import ApiKey, AuditEvent, Metronome, Run, Step, Version

RUN_FIELDS = tuple(field.name for field in fields(Run))
STEP_FIELDS = tuple(field.name for field in fields(Step) if field.default is MISSING)
METRONOME_FIELDS = tuple(field.name for field in fields(Metronome))
VERSION_FIELDS = tuple(field.name for field in fields(Version))
KEY_FIELDS = tuple(field.name for field in fields(ApiKey))
AUDIT_FIELDS = tuple(field.name for field in fields(AuditEvent))


def columns(names: Iterable[str], table: str) -> str:
    """``names`` as the inside of a SELECT list: ``r.id, r.status``."""
    return ", ".join(f"{table}.{name}" for name in names)


def step_id(table: str) -> str:
    """SQL for the id of the step of ``table``, which has run_id and seq: see ``ids.step_id``."""
    seq = f"CAST({table}.seq AS text)"
    padded = f"lpad({seq}, greatest(6, length({seq})), '0')"
    return f"'step_' || substr({table}.run_id, 5) || '_' || {padded}"


def run(row: Sequence[Any]) -> Run:
    """A Run from a row that begins with RUN_FIELDS."""
    return Run(*row[: len(RUN_FIELDS)])


def step(row: Sequence[Any]) -> Step:
    """A Step from a row that begins with STEP_FIELDS."""
    return Step(*row[: len(STEP_FIELDS)])


def metronome(row: Sequence[Any]) -> Metronome:
    """A Metronome from a row that begins with METRONOME_FIELDS."""
    return Metronome(*row[: len(METRONOME_FIELDS)])


def version(row: Sequence[Any]) -> Version:
    """A Version from a row that begins with VERSION_FIELDS."""
    return Version(*row[: len(VERSION_FIELDS)])


def key(row: Sequence[Any]) -> ApiKey:
    """An ApiKey from a row that begins with KEY_FIELDS."""
    return ApiKey(*row[: len(KEY_FIELDS)])


def audit_event(row: Sequence[Any]) -> AuditEvent:
    """An AuditEvent from a row that begins with AUDIT_FIELDS."""
    return AuditEvent(*row[: len(AUDIT_FIELDS)])
