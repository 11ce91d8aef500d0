"""Versions in answers, what they differ in, and the history of what was published."""

from __future__ import annotations

from typing import Any

from app.clock import iso
from app.domain.diff import Changes, Difference
from app.domain.models import Deployment, Version


def version(version: Version) -> dict[str, Any]:
    """VERSION, with its definition in the shape in which it was given."""
    return {
        "id": version.id,
        "metronomeId": version.metronome_id,
        "version": version.version,
        "label": _label(version.version),
        "description": version.description,
        "status": version.status,
        "definition": version.definition,
        "revision": version.revision,
        "nodeCount": version.node_count,
        "edgeCount": version.edge_count,
        "triggerSummary": version.trigger_summary,
        "createdAt": iso(version.created_at),
        "updatedAt": iso(version.updated_at),
        "publishedAt": iso(version.published_at),
    }


def difference(base: Version, target: Version, found: Difference) -> dict[str, Any]:
    """What has changed from one version to another."""
    return {
        "metronomeId": target.metronome_id,
        "baseVersionId": base.id,
        "baseVersionNumber": base.version,
        "targetVersionId": target.id,
        "targetVersionNumber": target.version,
        "nodes": _changes(found.nodes),
        "edges": _changes(found.edges),
    }


def deployment(deployment: Deployment) -> dict[str, Any]:
    """One publication, or the end of one."""
    return {
        "id": deployment.id,
        "metronomeId": deployment.metronome_id,
        "versionId": deployment.version_id,
        "version": deployment.version,
        "versionRevision": deployment.version_revision,
        "label": _label(deployment.version),
        "action": deployment.action,
        "description": deployment.description,
        "actorUserId": deployment.actor_user_id,
        "createdAt": iso(deployment.created_at),
    }


def _label(number: int | None) -> str | None:
    return None if number is None else f"v{number}"


def _changes(changes: Changes) -> dict[str, Any]:
    return {
        "added": list(changes.added),
        "removed": list(changes.removed),
        "changed": [
            {"id": one.id, "fields": list(one.fields), "before": one.before, "after": one.after}
            for one in changes.changed
        ],
        "addedCount": len(changes.added),
        "removedCount": len(changes.removed),
        "changedCount": len(changes.changed),
    }
