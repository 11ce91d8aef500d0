"""What goes out: records as the contract's JSON, by hand: marshmallow takes fifty times as long.

A test holds these against the schemas that the documentation is made from.
"""

from __future__ import annotations

from app.api.dump.answers import answer
from app.api.dump.audit import audit_event, compact_audit_event
from app.api.dump.metronomes import metronome, owner_candidate
from app.api.dump.runs import WAITS, approval, compact_run, run, run_view, step
from app.api.dump.schedules import schedule
from app.api.dump.test_runs import preview
from app.api.dump.timeline import result, timeline
from app.api.dump.trigger_events import (
    compact_trigger_event,
    delivered,
    trigger_event,
    trigger_summary,
)
from app.api.dump.validation import issue, validation
from app.api.dump.versions import deployment, difference, version

__all__ = [
    "WAITS",
    "answer",
    "approval",
    "audit_event",
    "compact_audit_event",
    "compact_run",
    "compact_trigger_event",
    "delivered",
    "deployment",
    "difference",
    "issue",
    "metronome",
    "owner_candidate",
    "preview",
    "result",
    "run",
    "run_view",
    "schedule",
    "step",
    "timeline",
    "trigger_event",
    "trigger_summary",
    "validation",
    "version",
]
