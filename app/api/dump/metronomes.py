"""Workflows in answers."""

from __future__ import annotations

from typing import Any

from app.clock import iso
from app.domain.models import Metronome


def metronome(metronome: Metronome) -> dict[str, Any]:
    """METRONOME, with its definition in the shape in which it was given."""
    return {
        "id": metronome.id,
        "userId": metronome.user_id,
        "name": metronome.name,
        "description": metronome.description,
        "status": metronome.status,
        "definition": metronome.definition,
        "triggerSummary": metronome.trigger_summary,
        "publishedVersionId": metronome.published_version_id,
        "publishedVersionNumber": metronome.published_version_number,
        "createdAt": iso(metronome.created_at),
        "updatedAt": iso(metronome.updated_at),
    }
