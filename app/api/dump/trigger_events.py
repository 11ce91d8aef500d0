"""Deliveries in answers."""

from __future__ import annotations

from typing import Any

from app.clock import iso
from app.domain.models import TriggerEvent


def trigger_event(event: TriggerEvent) -> dict[str, Any]:
    """EVENT."""
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
        "payload": event.payload,
        "createdAt": iso(event.created_at),
    }
