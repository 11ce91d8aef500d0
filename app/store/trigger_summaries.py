"""What has come for a workflow, by the type of its triggers: totals, and the last of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.domain.models import Page, TriggerEvent
from app.store import rows
from app.store.schema import EVENT_STATUSES
from app.store.trigger_events import FIELDS, event


@dataclass(frozen=True, slots=True)
class Summary:
    """The deliveries of one type; ``counts`` and ``last_at`` are by what they came to."""

    trigger_type: str
    counts: Mapping[str, int]
    last_at: Mapping[str, datetime | None]
    last_run_id: str | None
    last_run_status: str | None  # None where the run was deleted
    last_run_at: datetime | None
    last_event: TriggerEvent | None
    last_matched_event: TriggerEvent | None


_COUNTS = ", ".join(f"t.{status}_count" for status in EVENT_STATUSES)
_TIMES = ", ".join(f"t.last_{status}_at" for status in EVENT_STATUSES)

_PAGE = text(f"""
SELECT t.trigger_type, {_COUNTS}, {_TIMES}, t.last_run_id, r.status, r.created_at,
    {rows.columns(FIELDS, "e")}, {rows.columns(FIELDS, "f")}
FROM metronomes m
LEFT JOIN LATERAL (
    SELECT * FROM trigger_totals t
    WHERE t.metronome_id = m.id
      AND (CAST(:after AS text) IS NULL OR t.last_event_id < :after)
    ORDER BY t.last_event_id DESC
    LIMIT :limit OFFSET :offset
) t ON true
LEFT JOIN runs r ON r.id = t.last_run_id
LEFT JOIN trigger_events e ON e.id = t.last_event_id
LEFT JOIN trigger_events f ON f.id = t.last_matched_event_id
WHERE m.id = :metronome_id AND m.organization_id = :organization_id
ORDER BY t.last_event_id DESC
""")


def page(
    connection: Connection, organization_id: str, metronome_id: str, page: Page
) -> list[Summary] | None:
    """The summaries of a workflow, the latest first; None where there is no such workflow.

    They are in the order of their last events, whose ids are the cursors.
    """
    values = {
        "organization_id": organization_id,
        "metronome_id": metronome_id,
        "limit": page.limit,
        "offset": page.offset,
        "after": page.after,
    }
    found = connection.execute(_PAGE, values).all()
    if not found:
        return None
    return [_summary(row) for row in found if row[0] is not None]


def _summary(row: Any) -> Summary:
    several = len(EVENT_STATUSES)
    counts, times = row[1 : 1 + several], row[1 + several : 1 + 2 * several]
    run_id, run_status, run_at, *events = row[1 + 2 * several :]
    last, matched = events[: len(FIELDS)], events[len(FIELDS) :]
    return Summary(
        trigger_type=row[0],
        counts=dict(zip(EVENT_STATUSES, counts, strict=True)),
        last_at=dict(zip(EVENT_STATUSES, times, strict=True)),
        last_run_id=run_id,
        last_run_status=run_status,
        last_run_at=run_at,
        last_event=None if last[0] is None else event(last),
        last_matched_event=None if matched[0] is None else event(matched),
    )
