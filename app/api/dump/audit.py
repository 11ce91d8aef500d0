"""Audit events in answers."""

from __future__ import annotations

from typing import Any

from app.clock import iso
from app.domain.models import AuditEvent


def audit_event(event: AuditEvent) -> dict[str, Any]:
    """AUDIT."""
    return {**compact_audit_event(event), "payload": event.payload}


def compact_audit_event(event: AuditEvent) -> dict[str, Any]:
    """AUDIT without its payload."""
    return {
        "id": event.id,
        "metronomeId": event.metronome_id,
        "userId": event.user_id,
        "actorUserId": event.actor_user_id,
        "actorKeyId": event.actor_key_id,
        "runId": event.run_id,
        "versionId": event.version_id,
        "action": event.action,
        "createdAt": iso(event.created_at),
    }
