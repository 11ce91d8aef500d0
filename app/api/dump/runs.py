"""Runs, their steps and what waits in them, in answers."""

from __future__ import annotations

from typing import Any

from app.clock import iso
from app.domain.lifecycle import WAITING_APPROVAL
from app.domain.models import Approval, OpenStep, Run, RunView, Step
from app.ids import step_id

WAITS = ("approval", "loop", "nested_run", "callback", "sleep")


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
        "versionRevision": run.version_revision,
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
        "concurrencyKey": run.concurrency_key,
        "admitted": run.admitted,
        "parentRunId": run.parent_run_id,
        "parentStepId": _parent_step(run),
        "rootRunId": run.root_run_id,
        "inDoubt": run.in_doubt,
    }


def _parent_step(run: Run) -> str | None:
    if run.parent_run_id is None or run.parent_seq is None:
        return None
    return step_id(run.parent_run_id, run.parent_seq)


def run_view(view: RunView, *, compact: bool) -> dict[str, Any]:
    """RUN with what goes on in it."""
    open_steps = [(step, step_id(view.run.id, step.seq)) for step in view.open_steps]
    return {
        **(compact_run(view.run) if compact else run(view.run)),
        "inFlight": [
            {
                "stepId": id,
                "nodeId": step.node_id,
                "attempt": step.attempt,
                "startedAt": iso(step.started_at),
            }
            for step, id in open_steps
            if not step.parked
        ],
        "waitingFor": [
            {
                "stepId": id,
                "nodeId": step.node_id,
                "type": _waits_for(step),
                "until": iso(step.wake_at),
                "childRunId": step.child_run_id,
            }
            for step, id in open_steps
            if step.parked
        ],
        "childCount": view.child_count,
    }


def _waits_for(step: OpenStep | Step) -> str:
    """What a parked step waits for: one of WAITS."""
    if step.status == WAITING_APPROVAL:
        return "approval"
    if step.node_type == "loop":
        return "loop"
    if step.node_type == "metronome":
        return "nested_run"
    return "sleep" if step.connector is None else "callback"


def step(step: Step) -> dict[str, Any]:
    """STEP; its metadata tells what it waits for, and which iteration of a loop it is in."""
    metadata = step.metadata or {}
    if step.parked:
        metadata = {**metadata, "waitingFor": _waits_for(step)}
    if step.wake_at is not None:
        metadata = {**metadata, "wakeAt": iso(step.wake_at)}
    if step.loops:
        path = [{"loop": one.loop, "iteration": one.iteration} for one in step.loops]
        metadata = {**metadata, "iteration": path}
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


def approval(approval: Approval) -> dict[str, Any]:
    """A step that waits for a decision."""
    return {
        "runId": approval.run_id,
        "metronomeId": approval.metronome_id,
        "stepId": step_id(approval.run_id, approval.seq),
        "nodeId": approval.node_id,
        "runStatus": approval.run_status,
        "title": approval.title,
        "message": approval.message,
        "deadline": iso(approval.deadline),
        "requestedAt": iso(approval.requested_at),
    }
