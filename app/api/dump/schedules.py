"""Schedules in answers."""

from __future__ import annotations

from typing import Any

from app.clock import iso
from app.services.schedules import ScheduleView


def schedule(view: ScheduleView) -> dict[str, Any]:
    """SCHEDULE."""
    listed, plan = view.listed, view.plan
    return {
        "id": listed.id,
        "metronomeId": listed.metronome_id,
        "versionId": listed.version_id,
        "userId": listed.user_id,
        "nodeId": listed.node_id,
        "paused": listed.paused,
        "scheduleType": None if plan is None else plan.kind,
        "scheduleTimezone": None if plan is None else plan.zone.key,
        "scheduledTime": None if plan is None else iso(plan.at),
        "cronExpression": None if plan is None else plan.expression,
        "intervalSeconds": None if plan is None else plan.seconds,
        "nextDueAt": iso(listed.next_due_at),
        "upcoming": [iso(moment) for moment in view.upcoming],
        "createdAt": iso(listed.created_at),
    }
