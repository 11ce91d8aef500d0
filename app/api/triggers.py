"""Triggers over HTTP: what starts runs, but for GitHub's webhooks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import Response

from app.api import dump, idempotency
from app.api.blueprint import Blueprint
from app.api.context import actor, db, free_places, tell_due
from app.api.schemas.triggers import (
    CallBody,
    DeliveredAnswer,
    InboundAnswer,
    InboundBody,
    TrialBody,
)
from app.domain.models import TriggerEvent
from app.domain.roles import Permission
from app.domain.trigger_rows import FUNCTION
from app.services import deliveries
from app.services import triggers as service

_KEY_OF_EVENT = {
    **idempotency.IDEMPOTENCY_KEY,
    "description": "The event's id where the body has no sourceEventId: sent again with the same"
    " key, it starts nothing anew.",
}

triggers = Blueprint("triggers", prefix="/v1/metronomes", description="What starts runs.")


@triggers.operation(
    "POST",
    "/events/inbound",
    InboundAnswer,
    needs=Permission.RUN,
    body=InboundBody,
    takes=[_KEY_OF_EVENT],
    told="What the event came to, for each workflow that listens for such events.",
    example={
        "triggerType": "email",
        "sourceEventId": "<20260131.1@example.org>",
        "payload": {
            "from": "ada@example.org",
            "to": "orders@example.org",
            "subject": "Order 17",
            "body": "Ten of them, please.",
        },
    },
)
def deliver_event(body: dict[str, Any]) -> Response:
    """Deliver an event to all workflows that listen for it.

    Published workflows with a trigger of this type run if the event matches the trigger's filters;
    `data` tells of each, with the reason where it does not run. Runs belong to the owners of the
    workflows. Delivered again with the same `sourceEventId`, the event starts nothing anew. Without
    one, the header `Idempotency-Key` stands for it.
    """
    key = idempotency.key(None)
    given = deliveries.delivery(
        body["trigger_type"],
        body["payload"],
        source_event_id=body.get("source_event_id") or key,
        summary=body.get("summary"),
    )
    return delivered(deliveries.deliver(db(), actor(), given, tell=tell_due, free=free_places))


def delivered(events: list[TriggerEvent]) -> Response:
    """The answer to a delivery for all workflows."""
    return dump.answer(
        {
            "success": True,
            "object": "list",
            "matched_count": sum(event.run_id is not None for event in events),
            "data": [dump.compact_trigger_event(event) for event in events],
        }
    )


@triggers.operation(
    "POST",
    "/<metronomeId>/triggers/function/<slug>",
    DeliveredAnswer,
    status=201,
    told="The run is queued.",
    also={200: "It was called with this key or sourceEventId before: the run of then."},
    needs=Permission.RUN,
    body=CallBody,
    refuses=[409],
    takes=[idempotency.IDEMPOTENCY_KEY],
    headers=idempotency.HEADERS,
    example={"payload": {"order": 17}, "sourceEventId": "order-17"},
)
def call_function_trigger(body: dict[str, Any], metronome_id: str, slug: str) -> Response:
    """Call a function trigger of the published workflow by its slug.

    The slug is `slug` in the trigger node's config; without one it is the node's id. 404 with the
    code `trigger_not_found` where the published version has no such trigger. 409 where nothing is
    published (`not_published`), the workflow is paused (`metronome_paused`) or archived, or is at
    its limit (`concurrency_limit`). These are recorded as ignored.
    """
    given = deliveries.delivery(
        FUNCTION, body["payload"], source_event_id=body.get("source_event_id")
    )
    key = idempotency.key(body.get("idempotency_key"))
    found = service.call(
        db(),
        actor(),
        metronome_id,
        slug,
        given,
        idempotency_key=key,
        tell=tell_due,
        free=free_places,
    )
    return _outcome(found)


@triggers.operation(
    "POST",
    "/<metronomeId>/triggers/test",
    DeliveredAnswer,
    status=201,
    told="The run is queued.",
    also={200: "It was tried with this key or sourceEventId before: the run of then."},
    needs=Permission.RUN,
    body=TrialBody,
    refuses=[409],
    takes=[idempotency.IDEMPOTENCY_KEY],
    headers=idempotency.HEADERS,
    example={"triggerType": "email", "payload": {"subject": "Order 17"}},
)
def test_trigger(body: service.Trial, metronome_id: str) -> Response:
    """Try a trigger out with a sample event.

    The event is recorded, and starts a run of the draft, or of the definition that came along;
    nothing has to be published. `matched` tells whether it has a trigger of this type whose filters
    match, and `mismatch` why an event such as this would be ignored.
    """
    key = idempotency.key(body.run.idempotency_key)
    trial = service.Trial(body.given, replace(body.run, idempotency_key=key))
    return _outcome(
        service.test(db(), actor(), metronome_id, trial, tell=tell_due, free=free_places)
    )


def _outcome(found: service.Outcome) -> Response:
    data = dump.delivered(found.event, found.run, found.mismatch)
    told = idempotency.headers(found.new, found.run.metronome_id, "runs", found.run.id)
    return dump.answer({"data": data}, 201 if found.new else 200, told)
