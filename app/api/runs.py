"""Runs over HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from flask import Response

from app.api import dump
from app.api.blueprint import Blueprint
from app.api.context import actor, db, tell_due
from app.api.paging import listed
from app.api.schemas.base import DeletedAnswer, EmptyBody
from app.api.schemas.runs import (
    RunAnswer,
    RunBody,
    RunChanges,
    RunList,
    RunQuery,
    RunsQuery,
    StepList,
)
from app.domain.models import Transitioned
from app.services import runs as service
from app.store.runs import RunFilter

runs = Blueprint(
    "runs",
    prefix="/v1/metronomes/<metronomeId>/runs",
    description="Runs of workflows, and their cancellation.",
)

_REPLAY = {
    "Idempotent-Replay": {
        "description": "`true` where the idempotencyKey was used before: the run is that of then.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
_CANCEL = {
    "Cancel-Outcome": {
        "description": "What the request came to: it cancelled the run, or had no need to.",
        "required": True,
        "schema": {
            "type": "string",
            "enum": ["cancelled", "already_cancelled", "already_completed", "already_failed"],
        },
    },
    "Cancel-In-Flight": {
        "description": "Ids of the nodes that had started and not ended, separated by commas,"
        " percent-encoded (RFC 3986); absent when there are none. Only their side effects may"
        " still happen: nothing else starts.",
        "schema": {"type": "string"},
    },
}


@runs.operation("GET", "", RunList, query=RunsQuery)
def list_runs(query: dict[str, Any], metronome_id: str) -> Response:
    """List runs, newest first."""
    wanted = RunFilter(
        statuses=query["status"],
        search=query.get("q"),
        project_id=query.get("project_id"),
        ticket_id=query.get("ticket_id"),
    )
    limit, offset = query["limit"], query["offset"]
    found = service.page(db(), actor(), metronome_id, wanted, limit=limit + 1, offset=offset)
    return dump.answer(listed(found, limit, dump.run))


@runs.operation(
    "POST",
    "",
    RunAnswer,
    status=201,
    told="The run is queued.",
    also={200: "The idempotencyKey was used before: the run of then."},
    body=RunBody,
    refuses=[409],
    headers=_REPLAY,
    example={"input": {"name": "Ada"}},
)
def create_run(body: service.RunRequest, metronome_id: str) -> Response:
    """Run a workflow.

    The run is of an immutable version: the one named, or the draft as it is now. It is queued,
    and an executor takes it as soon as it can. 409 where the workflow is archived, or where it has
    no node that could run.
    """
    run, new = service.create(db(), actor(), metronome_id, body, tell=tell_due)
    replay = None if new else {"Idempotent-Replay": "true"}
    return dump.answer({"data": dump.run(run)}, 201 if new else 200, replay)


@runs.operation("GET", "/<runId>", RunAnswer, query=RunQuery)
def get_run(query: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """Get a run."""
    shown = dump.compact_run if query["view"] == "compact" else dump.run
    return dump.answer({"data": shown(service.get(db(), actor(), metronome_id, run_id))})


@runs.operation("PATCH", "/<runId>", RunAnswer, body=RunChanges)
def update_run(body: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """Attach a run to a project or a ticket of yours."""
    return dump.answer(
        {"data": dump.run(service.attach(db(), actor(), metronome_id, run_id, body))}
    )


@runs.operation("DELETE", "/<runId>", DeletedAnswer, refuses=[409])
def delete_run(metronome_id: str, run_id: str) -> Response:
    """Delete a run and its steps.

    409 with the code `run_active` while it is active, or while a node of it is in flight.
    """
    service.delete(db(), actor(), metronome_id, run_id)
    return dump.answer({"success": True, "deleted": True})


@runs.operation("GET", "/<runId>/steps", StepList)
def list_run_steps(metronome_id: str, run_id: str) -> Response:
    """List the steps of a run: its trace, in order."""
    found = service.list_steps(db(), actor(), metronome_id, run_id)
    return dump.answer(listed(found, len(found), dump.step))


@runs.operation(
    "POST",
    "/<runId>/cancel",
    RunAnswer,
    told="The run is cancelled, or had ended before.",
    body=EmptyBody,
    headers=_CANCEL,
)
def cancel_run(_: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """Cancel a run.

    When this answers 200, no node of the run starts any more. A node that had started may still
    do what it does; `Cancel-In-Flight` names it. A run that has ended is answered unchanged.
    No body is needed: it may be absent, empty or `{}`, with any Content-Type.
    """
    done = service.cancel(db(), actor(), metronome_id, run_id)
    return dump.answer({"data": dump.run(done.run)}, headers=_cancel_headers(done))


def _cancel_headers(done: Transitioned) -> dict[str, str]:
    headers: dict[str, str] = {"Cancel-Outcome": service.cancel_outcome(done)}
    if done.in_flight:
        headers["Cancel-In-Flight"] = ",".join(quote(node, safe="") for node in done.in_flight)
    return headers
