"""A run with everything round it, in one statement: so all of it is of one moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, TextClause, text

from app.domain.models import AuditEvent, Step, Timeline, TriggerEvent
from app.store import rows, runs, trace, trigger_events

# Inputs, outputs and payloads, which may be long; in a compact timeline they are not even read.
_PAYLOADS = frozenset({"input", "output", "payload"})

_BEFORE = """coalesce(sum(
            coalesce(octet_length(CAST(s.input AS text)), 0)
            + coalesce(octet_length(CAST(s.output AS text)), 0)
        ) OVER (ORDER BY s.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)"""


def _array(names: Iterable[str], table: str, *, compact: bool) -> str:
    columns = ("NULL" if compact and name in _PAYLOADS else f"{table}.{name}" for name in names)
    return f"json_build_array({', '.join(columns)}"


def _statement(*, compact: bool) -> TextClause:
    step = _array(rows.STEP_FIELDS, "s", compact=compact)
    event = _array(trigger_events.FIELDS, "e", compact=compact)
    audit = _array(rows.AUDIT_FIELDS, "a", compact=compact)
    return text(f"""
WITH part AS MATERIALIZED (
    SELECT s.*, {"0" if compact else _BEFORE} AS bytes_before FROM runs r CROSS JOIN LATERAL (
        SELECT * FROM steps s WHERE s.run_id = r.id ORDER BY s.seq LIMIT :steps
    ) s
    WHERE r.id = :run_id AND r.metronome_id = :metronome_id AND r.organization_id = :organization_id
)
SELECT {runs.VIEW_COLUMNS},
    (SELECT {event}) FROM trigger_events e WHERE e.id = r.trigger_event_id),
    (
        SELECT json_agg({step}, s.completed_at IS NULL AND s.lease_token IS NULL) ORDER BY s.seq)
        FROM part s WHERE bytes_before <= :max_bytes
    ),
    (SELECT count(*) FROM part),
    (
        SELECT json_agg(json_build_array(l.seq, l.node_id, l.parent_seq, l.iteration))
        FROM steps l
        WHERE l.run_id = r.id AND l.seq <= (SELECT max(seq) FROM part WHERE parent_seq IS NOT NULL)
          AND l.node_type = '{trace.LOOP}'
    ),
    (
        SELECT json_agg({audit}) ORDER BY a.id)
        FROM (SELECT * FROM audit_events a WHERE a.run_id = r.id ORDER BY a.id LIMIT :events) a
    )
FROM runs r
WHERE r.id = :run_id AND r.metronome_id = :metronome_id AND r.organization_id = :organization_id
""")


_FULL = _statement(compact=False)
_COMPACT = _statement(compact=True)


def get(
    connection: Connection,
    organization_id: str,
    metronome_id: str,
    run_id: str,
    *,
    steps: int,
    max_bytes: int,
    events: int,
    compact: bool,
) -> Timeline | None:
    """The run with its trigger event, its first ``steps`` steps and ``events`` audit events.

    There are fewer steps where the inputs and outputs before them are more than ``max_bytes``.

    None where it is unknown, of another workflow or of another organization. ``compact`` leaves
    inputs, outputs and payloads out, but for those of the run itself.
    """
    values = {
        "run_id": run_id,
        "metronome_id": metronome_id,
        "organization_id": organization_id,
        "steps": steps + 1,
        "max_bytes": max_bytes,
        "events": events + 1,
    }
    row = connection.execute(_COMPACT if compact else _FULL, values).one_or_none()
    if row is None:
        return None
    event, trail, count, loops, audit = row[runs.VIEW_WIDTH :]
    found = [_step(one) for one in (trail or ())[:steps]]
    audited = [AuditEvent(*_values(rows.AUDIT_FIELDS, one)) for one in audit or ()]
    return Timeline(
        view=runs.view_of(row),
        event=None if event is None else TriggerEvent(*_values(trigger_events.FIELDS, event)),
        steps=tuple(trace.placed(found, loops or ())),
        audit_events=tuple(audited[:events]),
        more_steps=count > len(found),
        more_audit_events=len(audited) > events,
    )


def _step(values: Sequence[Any]) -> Step:
    *columns, parked = values
    return replace(rows.step(_values(rows.STEP_FIELDS, columns)), parked=parked)


def _values(names: Sequence[str], found: Sequence[Any]) -> list[Any]:
    """The values of JSON as columns would have them: times are texts there."""
    return [
        datetime.fromisoformat(value) if value is not None and name.endswith("_at") else value
        for name, value in zip(names, found, strict=True)
    ]
