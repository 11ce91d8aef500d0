"""The schedules of published workflows, over HTTP."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import dump
from app.api.blueprint import Blueprint
from app.api.context import actor, db
from app.api.paging import listed, page
from app.api.schemas.schedules import ScheduleList, SchedulesQuery
from app.services import schedules as service

schedules = Blueprint(
    "schedules",
    prefix="/v1/schedules",
    description="When published workflows start runs by themselves.",
)


@schedules.operation("GET", "", ScheduleList, query=SchedulesQuery)
def list_schedules(query: dict[str, Any]) -> Response:
    """List the schedules of published workflows, newest first, with their next due times."""
    found = service.page(db(), actor(), query.get("metronome_id"), page(query))
    return dump.answer(listed(found, query["limit"], dump.schedule, lambda one: one.listed.id))
