"""What was delivered for workflows, and what it came to.

The events are counted as they are written, by the same statement: a summary reads a few totals and
never the events, of which there may be millions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, Literal

import orjson
from sqlalchemy import Connection, Row, select, text, union_all

from app.domain.models import NewEvent, Page, TriggerEvent
from app.ids import first_id
from app.store import rows
from app.store.run_list import CLOCKS_DIFFER
from app.store.schema import EVENT_STATUSES, trigger_events

FIELDS = tuple(field.name for field in fields(TriggerEvent))
SOURCE_EVENTS = 1_000  # of one delivery, that a repetition is answered with

MATCHED: Final = "matched"
IGNORED: Final = "ignored"
FAILED: Final = "failed"
UNAUTHORIZED: Final = "unauthorized"


def recorded(created: str) -> str:
    """SQL of WITH queries that record the event which started the run of ``created``.

    ``created`` names a WITH query before it, of one row at the most, with the columns of runs: no
    row, no event. Put the text behind it, between commas. The statement is to be run with
    ``parameters(event)``; where there is no event they are all NULL, and nothing is written.
    """
    return f"""trigger_event AS (
    INSERT INTO trigger_events AS e (id, organization_id, metronome_id, user_id, run_id,
        trigger_type, status, source_event_id, summary, payload, sample)
    SELECT CAST(:trigger_event_id AS text), c.organization_id, c.metronome_id, m.user_id, c.id,
        CAST(:event_trigger_type AS text), '{MATCHED}', CAST(:source_event_id AS text),
        CAST(:event_summary AS text), CAST(:event_payload AS json),
        CAST(:event_is_sample AS text) IS NOT NULL
    FROM {created} c JOIN metronomes m ON m.id = c.metronome_id
    WHERE CAST(:trigger_event_id AS text) IS NOT NULL
    RETURNING e.id, e.organization_id, e.metronome_id, e.trigger_type, e.run_id, e.created_at
),
trigger_event_counted AS (
    INSERT INTO trigger_totals AS t (metronome_id, trigger_type, organization_id, matched_count,
        last_matched_at, last_event_id, last_matched_event_id, last_run_id)
    SELECT metronome_id, trigger_type, organization_id, 1, created_at, id, id, run_id
    FROM trigger_event
    ON CONFLICT (metronome_id, trigger_type) DO UPDATE SET
        matched_count = t.matched_count + 1,
        last_matched_at = greatest(t.last_matched_at, EXCLUDED.last_matched_at),
        last_event_id = greatest(t.last_event_id, EXCLUDED.last_event_id),
        last_matched_event_id = greatest(t.last_matched_event_id, EXCLUDED.last_matched_event_id),
        last_run_id = greatest(t.last_run_id, EXCLUDED.last_run_id)
)"""


def parameters(event: NewEvent | None) -> dict[str, str | None]:
    """What ``recorded`` needs to know of the event; all None where there is none."""
    return {
        "trigger_event_id": None if event is None else event.id,
        "event_trigger_type": None if event is None else event.trigger_type,
        "source_event_id": None if event is None else event.source_event_id,
        "event_summary": None if event is None else event.summary,
        "event_payload": None if event is None else event.payload,
        "event_is_sample": "true" if event is not None and event.sample else None,
    }


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A delivery that starts no run, and why; ``event.payload`` is JSON text.

    Without a ``metronome_id`` no workflow listens for it. ``passing`` says that it is ignored for a
    reason that may have gone when the same event is delivered again.
    """

    event: NewEvent
    status: Literal["ignored", "failed", "unauthorized"]
    reason: str
    metronome_id: str | None
    passing: bool = False


def _counted(status: str) -> str:
    return f"count(*) FILTER (WHERE e.status = '{status}')"


def _last(status: str) -> str:
    return f"max(e.created_at) FILTER (WHERE e.status = '{status}')"


_UNMATCHED = tuple(status for status in EVENT_STATUSES if status != MATCHED)

# All is written in the order of the ids, so that two such statements can't wait for each other. The
# owner is looked up; a workflow that is none of the organization's records nothing. What an event
# was ignored for is told anew where that was to pass, and is not counted again.
_INSERT = text(f"""
WITH given AS (
    SELECT * FROM json_to_recordset(CAST(:events AS json)) AS g (id text, metronome_id text,
        trigger_type text, status text, source_event_id text, summary text, reason text,
        payload json, sample boolean, passing boolean)
),
inserted AS (
    INSERT INTO trigger_events AS e (id, organization_id, metronome_id, user_id, trigger_type,
        status, source_event_id, summary, reason, payload, sample, passing)
    SELECT g.id, :organization_id, m.id, m.user_id, g.trigger_type, g.status, g.source_event_id,
        g.summary, g.reason, g.payload, g.sample, g.passing
    FROM given g
    LEFT JOIN metronomes m ON m.id = g.metronome_id AND m.organization_id = :organization_id
    WHERE g.metronome_id IS NULL OR m.id IS NOT NULL
    ORDER BY g.metronome_id, g.id
    ON CONFLICT DO NOTHING
    RETURNING {rows.columns(FIELDS, "e")}
),
known AS MATERIALIZED (
    SELECT e.id, g.reason, g.passing FROM trigger_events e
    JOIN given g ON g.metronome_id = e.metronome_id AND g.trigger_type = e.trigger_type
      AND g.source_event_id = e.source_event_id AND g.status = e.status
    WHERE e.organization_id = :organization_id AND e.status = '{IGNORED}' AND e.passing
      AND NOT e.sample AND NOT g.sample
    ORDER BY e.id FOR NO KEY UPDATE OF e
),
renewed AS (
    UPDATE trigger_events e SET reason = k.reason, passing = k.passing
    FROM known k WHERE e.id = k.id
),
counted AS (
    INSERT INTO trigger_totals AS t (metronome_id, trigger_type, organization_id,
        {", ".join(f"{one}_count, last_{one}_at" for one in _UNMATCHED)}, last_event_id)
    SELECT e.metronome_id, e.trigger_type, :organization_id,
        {", ".join(f"{_counted(one)}, {_last(one)}" for one in _UNMATCHED)}, max(e.id)
    FROM inserted e WHERE e.metronome_id IS NOT NULL
    GROUP BY e.metronome_id, e.trigger_type
    ORDER BY e.metronome_id, e.trigger_type
    ON CONFLICT (metronome_id, trigger_type) DO UPDATE SET
        {
    ", ".join(
        f"{one}_count = t.{one}_count + EXCLUDED.{one}_count,"
        f" last_{one}_at = greatest(t.last_{one}_at, EXCLUDED.last_{one}_at)"
        for one in _UNMATCHED
    )
},
        last_event_id = greatest(t.last_event_id, EXCLUDED.last_event_id)
)
SELECT * FROM inserted ORDER BY id
""")


def insert(
    connection: Connection, organization_id: str, unmatched: Sequence[Unmatched]
) -> list[TriggerEvent]:
    """Record deliveries that start no run, in one statement; the events, in the order of their ids.

    Those of workflows that are not the organization's are left out, and those that are recorded: an
    event is ignored once by each workflow, however often it is delivered.
    """
    if not unmatched:
        return []
    given = [
        {
            "id": one.event.id,
            "metronome_id": one.metronome_id,
            "trigger_type": one.event.trigger_type,
            "status": one.status,
            "source_event_id": one.event.source_event_id,
            "summary": one.event.summary,
            "reason": one.reason,
            "payload": orjson.Fragment(one.event.payload),
            "sample": one.event.sample,
            "passing": one.passing,
        }
        for one in unmatched
    ]
    values = {"organization_id": organization_id, "events": orjson.dumps(given).decode()}
    return [event(row) for row in connection.execute(_INSERT, values)]


def event(row: Row[Any] | Sequence[Any]) -> TriggerEvent:
    """A TriggerEvent from a row that begins with FIELDS."""
    return TriggerEvent(*row[: len(FIELDS)])


_EVENT = rows.columns(FIELDS, "e")

_OF_SOURCE = text(f"""
SELECT {_EVENT} FROM trigger_events e
WHERE e.organization_id = :organization_id AND e.trigger_type = :trigger_type
  AND e.source_event_id = :source_event_id AND NOT e.sample
ORDER BY e.id LIMIT {SOURCE_EVENTS}
""")


def of_source(
    connection: Connection, organization_id: str, trigger_type: str, source_event_id: str
) -> list[TriggerEvent]:
    """What this delivery has come to before, the oldest first; samples of it don't count."""
    values = {
        "organization_id": organization_id,
        "trigger_type": trigger_type,
        "source_event_id": source_event_id,
    }
    return [event(row) for row in connection.execute(_OF_SOURCE, values)]


_WITH_IDS = text(f"""
SELECT {_EVENT} FROM trigger_events e
WHERE e.id = ANY (:ids) AND e.organization_id = :organization_id
ORDER BY e.id
""")


def with_ids(
    connection: Connection, organization_id: str, ids: Sequence[str]
) -> list[TriggerEvent]:
    """The events with these ids, as far as they are the organization's, the oldest first."""
    if not ids:
        return []
    values = {"ids": list(ids), "organization_id": organization_id}
    return [event(row) for row in connection.execute(_WITH_IDS, values)]


_IGNORED = text(f"""
SELECT e.id FROM trigger_events e
WHERE e.organization_id = :organization_id AND e.trigger_type = :trigger_type
  AND e.source_event_id = :source_event_id AND coalesce(e.metronome_id, '') = ANY (:metronome_ids)
  AND e.status = '{IGNORED}' AND NOT e.sample
""")


def ignored_before(
    connection: Connection, organization_id: str, given: Sequence[Unmatched]
) -> list[str]:
    """The ids of the events that are recorded instead of these, which are of one delivery."""
    missing = [one for one in given if one.status == IGNORED and one.event.source_event_id]
    if not missing:
        return []
    values = {
        "organization_id": organization_id,
        "trigger_type": missing[0].event.trigger_type,
        "source_event_id": missing[0].event.source_event_id,
        "metronome_ids": [one.metronome_id or "" for one in missing],
    }
    return list(connection.execute(_IGNORED, values).scalars())


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to list; None and () mean any. ``created_before`` itself is out of the range."""

    statuses: tuple[str, ...] = ()
    trigger_type: str | None = None
    metronome_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def page(
    connection: Connection, organization_id: str, wanted: EventFilter, part: Page
) -> list[TriggerEvent]:
    """The events of an organization, or of one workflow of it, newest first.

    Each status has an index in the right order, so a list is read in one part for each.
    """
    of = trigger_events.c
    equal = (
        (of.organization_id, organization_id),
        (of.metronome_id, wanted.metronome_id),
        (of.trigger_type, wanted.trigger_type),
    )
    scope = [column == value for column, value in equal if value is not None]
    if part.after is not None:
        scope.append(of.id < part.after)
    if (after := wanted.created_after) is not None:
        scope += [of.created_at >= after, of.id >= first_id("tev", after - CLOCKS_DIFFER)]
    if (before := wanted.created_before) is not None:
        scope += [of.created_at < before, of.id < first_id("tev", before + CLOCKS_DIFFER)]
    newest = (
        select(*(of[name] for name in FIELDS))
        .where(*scope, of.status == status)
        .order_by(of.id.desc())
        .limit(part.limit + part.offset)
        for status in dict.fromkeys(wanted.statuses or EVENT_STATUSES)
    )
    listed = union_all(*(select(one.subquery()) for one in newest)).subquery()
    query = select(listed).order_by(listed.c.id.desc()).limit(part.limit).offset(part.offset)
    return [event(row) for row in connection.execute(query)]
