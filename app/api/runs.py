"""Runs over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import Response

from app.api import dump, idempotency
from app.api.blueprint import Blueprint
from app.api.context import actor, db, free_places, tell_due
from app.api.paging import listed, page
from app.api.schemas.base import DeletedAnswer
from app.api.schemas.runs import (
    ChildrenQuery,
    RunAnswer,
    RunBody,
    RunChanges,
    RunList,
    RunQuery,
    RunsQuery,
    StepList,
    StepsQuery,
)
from app.domain.roles import Permission
from app.services import runs as service
from app.services import starts
from app.store.run_list import RunFilter

runs = Blueprint(
    "runs",
    prefix="/v1/metronomes/<metronomeId>/runs",
    description="Runs of workflows, and their traces.",
)


@runs.operation("GET", "", RunList, query=RunsQuery)
def list_runs(query: dict[str, Any], metronome_id: str) -> Response:
    """List runs, newest first."""
    wanted = RunFilter(
        statuses=query["status"],
        search=query.get("q"),
        parent_run_id=query.get("parent_run_id"),
        project_id=query.get("project_id"),
        ticket_id=query.get("ticket_id"),
        created_after=query.get("created_after"),
        created_before=query.get("created_before"),
    )
    found = service.page(db(), actor(), metronome_id, wanted, page(query))
    return dump.answer(listed(found, query["limit"], dump.run, lambda one: one.id))


@runs.operation(
    "POST",
    "",
    RunAnswer,
    status=201,
    needs=Permission.RUN,
    told="The run is queued.",
    also={200: "The idempotencyKey was used before: the run of then."},
    body=RunBody,
    refuses=[409],
    takes=[idempotency.IDEMPOTENCY_KEY],
    headers=idempotency.HEADERS,
    example={"input": {"name": "Ada"}},
)
def create_run(body: starts.RunRequest, metronome_id: str) -> Response:
    """Run a workflow.

    The run is of the version named, else of the published one, else of the draft as it is now. It
    keeps to that definition, whatever is changed later. It is queued, and an executor takes it as
    soon as it can; where the workflow limits its runs (`concurrency`), it may have to wait for a
    place first: `admitted` tells. 409 where the workflow is archived (`metronome_archived`), has
    no node that could run (`nothing_to_run`), or is at its limit and rejects what is beyond it
    (`concurrency_limit`, with `runIds`: those at work).
    """
    wanted = replace(body, idempotency_key=idempotency.key(body.idempotency_key))
    run, new = starts.create(db(), actor(), metronome_id, wanted, tell=tell_due, free=free_places)
    told = idempotency.headers(new, run.metronome_id, "runs", run.id)
    return dump.answer({"data": dump.run(run)}, 201 if new else 200, told)


@runs.operation("GET", "/<runId>", RunAnswer, query=RunQuery, proves_key=True)
def get_run(query: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """Get a run, and what goes on in it just now."""
    found = service.view(db(), actor(), metronome_id, run_id)
    return dump.answer({"data": dump.run_view(found, compact=query["view"] == "compact")})


@runs.operation("PATCH", "/<runId>", RunAnswer, needs=Permission.RUN, body=RunChanges)
def update_run(body: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """Attach a run to a project or a ticket of yours."""
    return dump.answer(
        {"data": dump.run(service.attach(db(), actor(), metronome_id, run_id, body))}
    )


@runs.operation("DELETE", "/<runId>", DeletedAnswer, needs=Permission.EDIT, refuses=[409])
def delete_run(metronome_id: str, run_id: str) -> Response:
    """Delete a run, its steps and the runs below it.

    409 with the code `run_active` while one of them is active, while a node of theirs is in flight,
    or while the run above goes on.
    """
    service.delete(db(), actor(), metronome_id, run_id)
    return dump.answer({"success": True, "deleted": True})


@runs.operation("GET", "/<runId>/steps", StepList, query=StepsQuery, proves_key=True)
def list_run_steps(query: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """List the steps of a run: its trace, in order."""
    found = service.list_steps(db(), actor(), metronome_id, run_id, page(query))
    return dump.answer(listed(found, query["limit"], dump.step, lambda one: str(one.seq)))


@runs.operation("GET", "/<runId>/children", RunList, query=ChildrenQuery)
def list_run_children(query: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """List the runs that a run started, newest first; as a rule they are of other workflows."""
    wanted = RunFilter(
        statuses=query["status"],
        created_after=query.get("created_after"),
        created_before=query.get("created_before"),
    )
    found = service.children(db(), actor(), metronome_id, run_id, wanted, page(query))
    return dump.answer(listed(found, query["limit"], dump.run, lambda one: one.id))
