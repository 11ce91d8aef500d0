"""What goes out: records as the contract's JSON, by hand: marshmallow takes fifty times as long.

A test holds these against the schemas that the documentation is made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from flask import Response

from app.clock import iso
from app.domain.models import Metronome, Run, Step
from app.ids import step_id


def answer(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """``body`` as a JSON answer."""
    return Response(orjson.dumps(body), status, headers, mimetype="application/json")


def run(run: Run) -> dict[str, Any]:
    """RUN."""
    return {**compact_run(run), "input": run.input, "output": run.output}


def compact_run(run: Run) -> dict[str, Any]:
    """RUN without its input and output, which may be long."""
    return {
        "id": run.id,
        "metronomeId": run.metronome_id,
        "userId": run.user_id,
        "triggerType": run.trigger_type,
        "versionId": run.version_id,
        "triggerEventId": run.trigger_event_id,
        "idempotencyKey": run.idempotency_key,
        "status": run.status,
        "error": run.error,
        "startedAt": iso(run.started_at),
        "queuedAt": iso(run.queued_at),
        "nextAttemptAt": iso(run.next_attempt_at),
        "lockedAt": iso(run.locked_at),
        "completedAt": iso(run.completed_at),
        "createdAt": iso(run.created_at),
        "updatedAt": iso(run.updated_at),
        "lockedBy": run.locked_by,
        "attemptCount": run.attempt_count,
        "maxAttempts": run.max_attempts,
        "timeoutMs": run.timeout_ms,
        "attachedProjectId": run.attached_project_id,
        "attachedTicketId": run.attached_ticket_id,
    }


def step(step: Step) -> dict[str, Any]:
    """STEP; a sleeping one tells in its metadata when it wakes."""
    metadata = step.metadata or {}
    if step.wake_at is not None:
        metadata = {**metadata, "wakeAt": iso(step.wake_at)}
    duration = None
    if step.started_at is not None and step.completed_at is not None:
        duration = round((step.completed_at - step.started_at).total_seconds() * 1000)
    return {
        "id": step_id(step.run_id, step.seq),
        "runId": step.run_id,
        "metronomeId": step.metronome_id,
        "nodeId": step.node_id,
        "nodeType": step.node_type,
        "status": step.status,
        "attempt": step.attempt,
        "input": step.input,
        "output": step.output,
        "metadata": metadata,
        "durationMs": duration,
        "error": step.error,
        "startedAt": iso(step.started_at),
        "completedAt": iso(step.completed_at),
        "createdAt": iso(step.created_at),
        "updatedAt": iso(step.updated_at),
    }


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
