"""Workflows in answers."""

from __future__ import annotations

from typing import Any

from app.clock import iso
from app.domain.models import Metronome, OwnerCandidate


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
        "concurrency": _concurrency(metronome),
        "revision": metronome.revision,
        "createdAt": iso(metronome.created_at),
        "updatedAt": iso(metronome.updated_at),
    }


def _concurrency(metronome: Metronome) -> dict[str, Any] | None:
    if metronome.max_concurrent_runs is None:
        return None
    return {
        "maxConcurrentRuns": metronome.max_concurrent_runs,
        "onLimit": metronome.on_limit,
        "key": metronome.concurrency_key,
    }


def owner_candidate(candidate: OwnerCandidate) -> dict[str, Any]:
    """A user who could own a workflow."""
    return {
        "id": candidate.user_id,
        "userId": candidate.user_id,
        "role": candidate.role,
        "isOwner": candidate.is_owner,
    }
