"""Approvals over HTTP: what waits for a person, and what that person decides."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import dump
from app.api.blueprint import Blueprint
from app.api.context import actor, db
from app.api.paging import listed, page
from app.api.schemas.runs import RunAnswer
from app.api.schemas.transitions import ApprovalList, ApprovalsQuery, DecisionBody
from app.domain.roles import Permission
from app.ids import step_id
from app.services import approvals as service

approvals = Blueprint(
    "approvals", prefix="/v1", description="What waits for a person, and what that one decides."
)


@approvals.operation("GET", "/approvals", ApprovalList, query=ApprovalsQuery)
def list_approvals(query: dict[str, Any]) -> Response:
    """List the steps that wait for a decision in all workflows, those of the oldest run first.

    All are listed that can still be decided, also where the run is paused, backs off or is busy
    elsewhere: `runStatus` tells.
    """
    found = service.page(db(), actor(), page(query))
    return dump.answer(
        listed(found, query["limit"], dump.approval, lambda one: step_id(one.run_id, one.seq))
    )


@approvals.operation(
    "POST",
    "/metronomes/<metronomeId>/runs/<runId>/approve",
    RunAnswer,
    needs=Permission.OPERATE,
    told="The decision is kept, and the run goes on with it.",
    body=DecisionBody,
    refuses=[409],
    example={"decision": "approved", "comment": "Looks good."},
)
def approve_run(body: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """Approve or reject a step that waits.

    Who decided what, and when, is in the step's output. A run that is paused keeps the decision
    until it is resumed. 409 with the code `not_waiting` where no such step waits (any more),
    `already_decided` where somebody was faster, and `approval_expired` behind the deadline.
    """
    run = service.decide(
        db(),
        actor(),
        metronome_id,
        run_id,
        approved=body["decision"] == "approved",
        comment=body.get("comment"),
        node_id=body.get("node_id"),
        step_id=body.get("step_id"),
    )
    return dump.answer({"data": dump.run(run)})
