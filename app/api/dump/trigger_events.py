"""What was delivered for workflows, in answers."""

from __future__ import annotations

from typing import Any

from app.api.dump.runs import run as dump_run
from app.clock import iso
from app.domain.models import Run, TriggerEvent
from app.store.trigger_summaries import Summary


def trigger_event(event: TriggerEvent) -> dict[str, Any]:
    """EVENT."""
    return {**compact_trigger_event(event), "payload": event.payload}


def compact_trigger_event(event: TriggerEvent) -> dict[str, Any]:
    """EVENT without its payload, which may be long."""
    return {
        "id": event.id,
        "metronomeId": event.metronome_id,
        "userId": event.user_id,
        "runId": event.run_id,
        "triggerType": event.trigger_type,
        "status": event.status,
        "sourceEventId": event.source_event_id,
        "summary": event.summary,
        "reason": event.reason,
        "createdAt": iso(event.created_at),
    }


def delivered(event: TriggerEvent | None, run: Run, mismatch: str | None) -> dict[str, Any]:
    """What a delivery for one workflow came to."""
    return {
        "matched": mismatch is None,
        "mismatch": mismatch,
        "triggerEvent": None if event is None else trigger_event(event),
        "run": dump_run(run),
    }


def trigger_summary(summary: Summary) -> dict[str, Any]:
    """What has come for a workflow of one type."""
    last, matched = summary.last_event, summary.last_matched_event
    return {
        "triggerType": summary.trigger_type,
        "totalCount": sum(summary.counts.values()),
        **{f"{status}Count": count for status, count in summary.counts.items()},
        "lastReceivedAt": None if last is None else iso(last.created_at),
        **{f"last{status.title()}At": iso(at) for status, at in summary.last_at.items()},
        "lastRunId": summary.last_run_id,
        "lastRunStatus": summary.last_run_status,
        "lastRunAt": iso(summary.last_run_at),
        "lastEvent": None if last is None else trigger_event(last),
        "lastMatchedEvent": None if matched is None else trigger_event(matched),
    }
