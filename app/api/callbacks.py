"""Callbacks over HTTP: how a remote side ends the step that it was given.

No API key is needed, but the step's own token, which came with the work.
"""

from __future__ import annotations

from typing import Any

from flask import Response, g, request

from app.api import auth, dump
from app.api.blueprint import Blueprint
from app.api.context import db, shared
from app.api.schemas.base import EmptyBody
from app.api.schemas.callbacks import CallbackAnswer, CompleteBody, FailBody, HeartbeatAnswer
from app.domain.models import Step
from app.services import callbacks as service

callbacks = Blueprint(
    "callbacks",
    prefix="/v1/metronomes/<metronomeId>/runs/<runId>/steps/<stepId>",
    description="What connectors call back, with the token that came with their work.",
    security="callbackToken",
)

_OUTCOME = {
    "Callback-Outcome": {
        "description": "`recorded`: the run goes on with it. `duplicate`: there was one before."
        " `late`: the step had ended; it is kept in the step's metadata and changes nothing else.",
        "required": True,
        "schema": {"type": "string", "enum": ["recorded", "duplicate", "late"]},
    },
}


def _admit() -> None:
    args = request.view_args or {}
    ids = [str(args[name]) for name in ("metronome_id", "run_id", "step_id")]
    token = auth.bearer()
    if token is None or not all(auth.is_id(one) for one in ids):
        raise service.refused()
    g.ticket = service.admit(db(), ids[0], ids[1], ids[2], token)


callbacks.before_request(_admit)


@callbacks.operation("POST", "/complete", CallbackAnswer, body=CompleteBody, headers=_OUTCOME)
def complete_step(body: dict[str, Any], **_: str) -> Response:
    """Complete the work of a step.

    The run goes on behind the node, with this output. A second callback changes nothing.
    """
    most = shared().settings.max_output_bytes
    return _answer(*service.complete(db(), g.ticket, body["output"], max_bytes=most))


@callbacks.operation("POST", "/fail", CallbackAnswer, body=FailBody, headers=_OUTCOME)
def fail_step(body: dict[str, Any], **_: str) -> Response:
    """Fail the work of a step."""
    retryable = body["retryable"]
    return _answer(*service.fail(db(), g.ticket, body["error"], retryable=retryable))


@callbacks.operation("POST", "/heartbeat", HeartbeatAnswer, body=EmptyBody)
def beat_step(_: dict[str, Any], **__: str) -> Response:
    """Tell that the work of a step goes on.

    It puts off the time at which silence fails the step, where the connector has a heartbeat. The
    answer tells whether the work is still wanted: a run that is cancelled or paused needs no more.
    """
    status, run_status = service.beat(db(), g.ticket)
    return dump.answer({"data": {"status": status, "runStatus": run_status}})


def _answer(step: Step, outcome: str) -> Response:
    return dump.answer({"data": dump.step(step)}, headers={"Callback-Outcome": outcome})
