"""What became of a run, over HTTP: its timeline, and its result."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import dump
from app.api.blueprint import Blueprint
from app.api.context import actor, db
from app.api.schemas.base import NoQuery
from app.api.schemas.timeline import ResultAnswer, TimelineAnswer, TimelineQuery
from app.services import timeline as service

timeline = Blueprint(
    "timeline",
    prefix="/v1/metronomes/<metronomeId>/runs/<runId>",
    description="What became of runs.",
)


@timeline.operation("GET", "/timeline", TimelineAnswer, query=TimelineQuery)
def get_run_timeline(query: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """Get a run, what started it, its steps and its audit events.

    All of it is of one moment.
    """
    compact = query["view"] == "compact"
    found = service.get(db(), actor(), metronome_id, run_id, compact=compact)
    data = dump.timeline(found, compact=compact)
    return dump.answer({"object": "metronome.run.timeline", "data": data})


@timeline.operation("GET", "/result", ResultAnswer, query=NoQuery, refuses=[409])
def get_run_result(_: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """Get what a run came to.

    409 with the code `run_not_ended` while it goes on.
    """
    run = service.result(db(), actor(), metronome_id, run_id)
    return dump.answer({"object": "metronome.run.result", "data": dump.result(run)})
