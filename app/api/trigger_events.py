"""What was delivered for workflows, over HTTP."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from flask import Response

from app.api import dump
from app.api.blueprint import Blueprint
from app.api.context import actor, db
from app.api.paging import listed, page
from app.api.schemas.trigger_events import (
    TriggerEventList,
    TriggerEventsQuery,
    TriggerSummaryList,
    TriggerSummaryQuery,
)
from app.services import triggers as service
from app.store.trigger_events import EventFilter
from app.store.trigger_summaries import Summary

trigger_events = Blueprint(
    "trigger_events",
    prefix="/v1/metronomes",
    description="What was delivered for workflows, and what it came to.",
)


@trigger_events.operation("GET", "/trigger-events", TriggerEventList, query=TriggerEventsQuery)
def list_all_trigger_events(query: dict[str, Any]) -> Response:
    """List what was delivered for all workflows, newest first.

    Also what no workflow listens for (`metronomeId` is null), and what was not authorized.
    """
    return _events(query, None)


@trigger_events.operation(
    "GET", "/<metronomeId>/trigger-events", TriggerEventList, query=TriggerEventsQuery
)
def list_trigger_events(query: dict[str, Any], metronome_id: str) -> Response:
    """List what was delivered for a workflow, newest first."""
    return _events(query, metronome_id)


def _events(query: dict[str, Any], metronome_id: str | None) -> Response:
    wanted = EventFilter(
        query["status"],
        query.get("trigger_type"),
        metronome_id,
        created_after=query.get("created_after"),
        created_before=query.get("created_before"),
    )
    found = service.page(db(), actor(), wanted, page(query))
    return dump.answer(listed(found, query["limit"], dump.trigger_event, attrgetter("id")))


@trigger_events.operation(
    "GET", "/<metronomeId>/trigger-summary", TriggerSummaryList, query=TriggerSummaryQuery
)
def list_trigger_summaries(query: dict[str, Any], metronome_id: str) -> Response:
    """Sum up what was delivered for a workflow, by type, the latest first."""
    found = service.summaries(db(), actor(), metronome_id, page(query))
    return dump.answer(listed(found, query["limit"], dump.trigger_summary, _last_event))


def _last_event(summary: Summary) -> str:
    return "" if summary.last_event is None else summary.last_event.id
