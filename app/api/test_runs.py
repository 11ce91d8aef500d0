"""Trying workflows out, over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import Response

from app.api import dump, idempotency
from app.api.blueprint import Blueprint
from app.api.context import actor, connectors, db, free_places, tell_due
from app.api.schemas.runs import RunAnswer
from app.api.schemas.test_runs import DraftRunBody, PreviewAnswer, SliceRunBody
from app.domain.models import Run
from app.domain.roles import Permission
from app.services import starts
from app.services import test_runs as service

test_runs = Blueprint(
    "test_runs",
    prefix="/v1/metronomes/<metronomeId>",
    description="Runs that try a workflow out, or a part of one.",
)

_STARTS: dict[str, Any] = {
    "status": 201,
    "needs": Permission.RUN,
    "told": "The run is queued.",
    "also": {200: "The idempotencyKey was used before: the run of then."},
    "refuses": [409],
    "takes": [idempotency.IDEMPOTENCY_KEY],
    "headers": idempotency.HEADERS,
}
_EXAMPLE = {
    "selection": {"nodeIds": ["shape", "send"]},
    "fixture": {
        "input": {"name": "Ada"},
        "steps": {"fetch": {"status": 200, "body": {"total": 3}}},
    },
}


@test_runs.operation("POST", "/test-run", RunAnswer, body=DraftRunBody, **_STARTS)
def test_run(body: starts.RunRequest, metronome_id: str) -> Response:
    """Run the draft.

    It runs whatever is published: the draft as it is now, a `definition` in its place, or the
    version named. Every node does what it does in any run. The triggerType is `manual_test`.
    """
    wanted = _with_key(body)
    made = starts.create(db(), actor(), metronome_id, wanted, tell=tell_due, free=free_places)
    return _answer(*made)


@test_runs.operation(
    "POST", "/test-runs", RunAnswer, body=SliceRunBody, example=_EXAMPLE, **_STARTS
)
def create_test_run(body: service.SliceRequest, metronome_id: str) -> Response:
    """Test one node, or some that are connected.

    Nothing else runs: `fixture` says what the nodes around would have answered, and where it says
    nothing, they answer `{}`. The selected nodes do what they do in any run. The part is of the
    draft, of a `definition` in its place, or of the version named. 422 with the code
    `not_connected` where the selection does not hang together.
    """
    wanted = replace(body, run=_with_key(body.run))
    made = service.create(db(), actor(), metronome_id, wanted, tell=tell_due, free=free_places)
    return _answer(*made)


@test_runs.operation(
    "POST",
    "/test-runs/preview",
    PreviewAnswer,
    needs=Permission.RUN,
    told="What the test would run.",
    body=SliceRunBody,
    refuses=[409],
    example=_EXAMPLE,
)
def preview_test_run(body: service.SliceRequest, metronome_id: str) -> Response:
    """See what a test would run.

    Nothing is saved, and nothing runs. The answer has what stands in for the nodes around, what
    the fixture lacks, and the nodes that would do something outside of this service.
    """
    found = service.preview(db(), actor(), metronome_id, body, connectors())
    return dump.answer({"data": dump.preview(metronome_id, found)})


def _with_key(run: starts.RunRequest) -> starts.RunRequest:
    return replace(run, idempotency_key=idempotency.key(run.idempotency_key))


def _answer(run: Run, new: bool) -> Response:
    told = idempotency.headers(new, run.metronome_id, "runs", run.id)
    return dump.answer({"data": dump.run(run)}, 201 if new else 200, told)
