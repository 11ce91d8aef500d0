"""What may be asked of a run over HTTP: cancel, pause, resume, retry."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from flask import Response

from app.api import dump
from app.api.blueprint import Blueprint
from app.api.context import actor, db, free_places
from app.api.schemas.base import EmptyBody
from app.api.schemas.runs import RunAnswer
from app.api.schemas.transitions import ResumeBody, RetryBody
from app.domain.models import Transitioned
from app.domain.roles import Permission
from app.services import transitions as service

transitions = Blueprint(
    "transitions",
    prefix="/v1/metronomes/<metronomeId>/runs/<runId>",
    description="Stop runs, and let them go on.",
)

MAX_HEADER = 4_000  # characters: servers in between refuse headers that are much longer

_ENDED = ["already_cancelled", "already_completed", "already_failed"]


def _headers(action: str, outcomes: list[str]) -> dict[str, Any]:
    """The headers of the answer, as the documentation describes them."""
    return {
        f"{action}-Outcome": {
            "description": "What the request came to: it changed the run, or had no need to.",
            "required": True,
            "schema": {"type": "string", "enum": outcomes},
        },
        f"{action}-In-Flight": {
            "description": "The nodes that had started and not ended, separated by commas; absent"
            " when there are none. A node of the run itself is its id, one of a run below it is"
            " `runId/nodeId`; node ids are percent-encoded (RFC 3986). Only their side effects may"
            " still happen: nothing else starts.",
            "schema": {"type": "string"},
        },
        f"{action}-In-Flight-More": {
            "description": "How many nodes in flight the header had no room for; absent as a rule.",
            "schema": {"type": "integer"},
        },
    }


@transitions.operation(
    "POST",
    "/cancel",
    RunAnswer,
    needs=Permission.CANCEL,
    told="The run is cancelled, or had ended before.",
    body=EmptyBody,
    headers=_headers("Cancel", ["cancelled", *_ENDED]),
    proves_key=True,
)
def cancel_run(_: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """Cancel a run and all runs below it.

    When this answers 200, no node of them starts any more. A node that had started may still do
    what it does; `Cancel-In-Flight` names it. A run that has ended is answered unchanged. The run
    above, where there is one, goes on: its step fails, or takes its error edge.
    No body is needed: it may be absent, empty or `{}`, with any Content-Type.
    """
    done = service.cancel(db(), actor(), metronome_id, run_id, free=free_places)
    return _stopped("Cancel", service.cancel_outcome(done), done)


@transitions.operation(
    "POST",
    "/pause",
    RunAnswer,
    needs=Permission.OPERATE,
    told="The run is paused, or had been paused, or had ended before.",
    body=EmptyBody,
    headers=_headers("Pause", ["paused", "already_paused", *_ENDED]),
)
def pause_run(_: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """Pause a run and all runs below it.

    When this answers 200, no node of them starts until they are resumed. A node that had started
    ends by itself; `Pause-In-Flight` names it. A run that has ended is answered unchanged. So is
    one that is paused; but where that came from a run above, it stays paused from now on when that
    one is resumed.
    """
    done = service.pause(db(), actor(), metronome_id, run_id)
    return _stopped("Pause", service.pause_outcome(done), done)


@transitions.operation(
    "POST",
    "/resume",
    RunAnswer,
    needs=Permission.OPERATE,
    told="The run goes on, or was not paused.",
    body=ResumeBody,
    refuses=[409],
    headers={
        "Resume-Outcome": {
            "description": "`not_paused`: the run is answered unchanged.",
            "required": True,
            "schema": {"type": "string", "enum": ["resumed", "not_paused"]},
        }
    },
)
def resume_run(body: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """Resume a paused run, and what its pause had paused below it.

    It goes on behind the last finished node. 409 with the code `in_doubt` where a node may have
    run that does harm when it runs again: look at what it did, and send `confirmInDoubtReplay`
    (which also confirms the runs below), or cancel or retry the run. 409 with `paused_by_parent`
    where a run above is paused, and with `run_ended` where the run has ended.
    """
    confirm = body["confirm_in_doubt_replay"]
    done = service.resume(db(), actor(), metronome_id, run_id, confirm=confirm, free=free_places)
    headers = {"Resume-Outcome": service.resume_outcome(done)}
    return dump.answer({"data": dump.run(done.run)}, headers=headers)


@transitions.operation(
    "POST",
    "/retry",
    RunAnswer,
    needs=Permission.OPERATE,
    told="The run is queued.",
    body=RetryBody,
    refuses=[409],
)
def retry_run(body: dict[str, Any], metronome_id: str, run_id: str) -> Response:
    """Queue a run once more that has failed, was cancelled, or is in doubt.

    Its input and its version stay the same; earlier attempts stay in the trace. What still goes on
    below it is cancelled; but `from: failed` of a run in doubt keeps it, resumes what was paused
    with the run, and runs the node again. 409 with the code `not_retryable` where the run is in
    another state, and with `nested_run` where another run started it: retry that one.
    """
    afresh = body["start"] == "start"
    run = service.retry(db(), actor(), metronome_id, run_id, afresh=afresh, free=free_places)
    return dump.answer({"data": dump.run(run)})


def _stopped(action: str, outcome: str, done: Transitioned) -> Response:
    headers = {f"{action}-Outcome": outcome}
    nodes = [quote(node, safe="") for node in done.in_flight]
    nodes += [f"{run_id}/{quote(node, safe='')}" for run_id, node in done.nested_in_flight]
    shown, room = 0, MAX_HEADER
    while shown < len(nodes) and (room := room - len(nodes[shown]) - 1) > 0:
        shown += 1
    if shown:
        headers[f"{action}-In-Flight"] = ",".join(nodes[:shown])
    if shown < len(nodes):
        headers[f"{action}-In-Flight-More"] = str(len(nodes) - shown)
    return dump.answer({"data": dump.run(done.run)}, headers=headers)
