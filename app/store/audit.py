"""Audit events as they are listed; ``events.py`` has how they are written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select, union_all
from sqlalchemy.sql import ColumnElement

from app.domain.models import AuditEvent, Page
from app.ids import first_id
from app.store import rows
from app.store.run_list import CLOCKS_DIFFER
from app.store.schema import audit_events

_COLUMNS = [audit_events.c[name] for name in rows.AUDIT_FIELDS]


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events to list; None and () mean any. ``created_before`` itself is out of the range."""

    metronome_id: str | None = None
    run_id: str | None = None
    version_id: str | None = None
    actions: tuple[str, ...] = ()
    actor_user_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def page(
    connection: Connection, organization_id: str, wanted: AuditFilter, part: Page
) -> list[AuditEvent]:
    """A page of the events of an organization, newest first."""
    scope = _scope(organization_id, wanted, part)
    count = part.limit + part.offset
    # Each action has an index in the right order, and several have not.
    actions = list(dict.fromkeys(wanted.actions))
    found: Any = _newest([*scope, *(audit_events.c.action == one for one in actions[:1])], count)
    if len(actions) > 1:
        each = [_newest([*scope, audit_events.c.action == one], count) for one in actions]
        found = union_all(*(select(one.subquery()) for one in each))
    listed = found.subquery()
    query = select(listed).order_by(listed.c.id.desc()).limit(part.limit).offset(part.offset)
    return [rows.audit_event(row) for row in connection.execute(query)]


def _scope(organization_id: str, wanted: AuditFilter, part: Page) -> list[ColumnElement[bool]]:
    """What the listed events have in common, but for their actions."""
    of = audit_events.c
    equal = (
        (of.organization_id, organization_id),
        (of.metronome_id, wanted.metronome_id),
        (of.run_id, wanted.run_id),
        (of.version_id, wanted.version_id),
        (of.actor_user_id, wanted.actor_user_id),
    )
    scope: list[ColumnElement[bool]] = [
        column == value for column, value in equal if value is not None
    ]
    if part.after is not None:
        scope.append(of.id < part.after)
    if (after := wanted.created_after) is not None:
        scope += [of.created_at >= after, of.id >= first_id("evt", after - CLOCKS_DIFFER)]
    if (before := wanted.created_before) is not None:
        scope += [of.created_at < before, of.id < first_id("evt", before + CLOCKS_DIFFER)]
    return scope


def _newest(scope: list[ColumnElement[bool]], count: int) -> Select[Any]:
    return select(*_COLUMNS).where(*scope).order_by(audit_events.c.id.desc()).limit(count)
