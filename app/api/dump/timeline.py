"""What became of a run, in answers."""

from __future__ import annotations

from typing import Any

from app.api.dump.audit import audit_event, compact_audit_event
from app.api.dump.runs import run_view, step
from app.api.dump.trigger_events import trigger_event
from app.clock import iso
from app.domain.models import Run, Timeline

_PAYLOADS = ("input", "output", "payload")


def timeline(timeline: Timeline, *, compact: bool) -> dict[str, Any]:
    """A run, what started it, its steps and its audit events."""
    event = None if timeline.event is None else trigger_event(timeline.event)
    steps = [step(one) for one in timeline.steps]
    if compact:
        event = event and _without_payloads(event)
        steps = [_without_payloads(one) for one in steps]
    audited = compact_audit_event if compact else audit_event
    return {
        "run": run_view(timeline.view, compact=compact),
        "triggerEvent": event,
        "steps": steps,
        "hasMoreSteps": timeline.more_steps,
        "auditEvents": [audited(one) for one in timeline.audit_events],
        "hasMoreAuditEvents": timeline.more_audit_events,
    }


def _without_payloads(dumped: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in dumped.items() if name not in _PAYLOADS}


def result(run: Run) -> dict[str, Any]:
    """What a run came to."""
    return {
        "runId": run.id,
        "status": run.status,
        "output": run.output,
        "error": run.error,
        "completedAt": iso(run.completed_at),
    }
