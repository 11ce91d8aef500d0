"""What was delivered for workflows, in answers."""

from __future__ import annotations

from typing import Any

from app.clock import iso
from app.domain.models import TriggerEvent


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
