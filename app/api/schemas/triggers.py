"""Deliveries as they come in, and what they come to at once."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from app.api.schemas.base import Choice, Input, JsonObject, Named, Query, Text
from app.api.schemas.runs import MAX_ATTEMPTS, MAX_TIMEOUT_MS, RunSchema
from app.api.schemas.trigger_events import TYPE, TriggerEventSchema
from app.services import deliveries
from app.services.starts import RunRequest
from app.services.triggers import Trial

# What others tell us with an API key. GitHub's events come signed, by a way of their own; function
# triggers are called by their slugs, and nobody delivers schedules.
INBOUND_TYPES = (
    "email",
    "telegram",
    "thread_event",
    "project_ticket",
    "resource",
    "database_entry",
    "auth",
)

_PAYLOAD = "What `trigger.input` is in the workflow."
_SOURCE = "Its id where it comes from. Delivered again with the same id, it starts nothing anew."
_KEY = "A second request with this key answers the run of the first."


def _source_event_id() -> Text:
    return Text(1, 255, allow_none=True, metadata={"description": _SOURCE})


def _summary() -> Text:
    return Text(0, 1_000, allow_none=True, metadata={"description": "One line for people."})


class InboundBody(Input):
    """An event for all workflows that listen for such."""

    trigger_type = Choice(INBOUND_TYPES, required=True)
    payload = JsonObject(load_default=dict, metadata={"description": _PAYLOAD})
    source_event_id = _source_event_id()
    summary = _summary()


class CallBody(Input):
    """What a function trigger is called with."""

    payload = JsonObject(load_default=dict, metadata={"description": _PAYLOAD})
    source_event_id = _source_event_id()
    idempotency_key = Text(1, 255, allow_none=True, metadata={"description": _KEY})


class TrialBody(Input):
    """A sample of an event, for one workflow."""

    trigger_type = Text(1, 64, pattern=TYPE, load_default="manual_test")
    payload = JsonObject(load_default=dict, metadata={"description": _PAYLOAD})
    source_event_id = _source_event_id()
    summary = _summary()
    definition = JsonObject(metadata={"description": "Try this instead of the draft."})
    idempotency_key = Text(1, 255, allow_none=True, metadata={"description": _KEY})
    max_attempts = fields.Integer(
        strict=True, validate=validate.Range(1, MAX_ATTEMPTS), load_default=1
    )
    timeout_ms = fields.Integer(
        strict=True, allow_none=True, validate=validate.Range(1, MAX_TIMEOUT_MS)
    )
    attached_project_id = Text(1, 255, allow_none=True)
    attached_ticket_id = Text(1, 255, allow_none=True)

    @ma.post_load
    def _as_trial(self, data: dict[str, Any], **_: Any) -> Trial:
        given = deliveries.delivery(
            data.pop("trigger_type"),
            data.pop("payload"),
            source_event_id=data.pop("source_event_id", None),
            summary=data.pop("summary", None),
            sample=True,
        )
        return Trial(given, RunRequest(**data))


class GithubQuery(Query):
    """How a delivery of GitHub's proves where it is from, where its headers don't."""

    secret = Text(1, 200, metadata={"description": "The webhook's secret, instead of a signature."})
    webhook = Text(
        1,
        100,
        pattern="[A-Za-z0-9_-]+",
        metadata={
            "description": "The id of the webhook: then only its secret is tried, and deliveries"
            " that are refused are recorded."
        },
    )


class DeliveredEventSchema(TriggerEventSchema):
    """EVENT without its payload, which the sender knows."""

    class Meta:
        """Options of marshmallow."""

        exclude = ("payload",)


class InboundAnswer(Named):
    """What a delivery came to, for each workflow that listens for such events."""

    success = fields.Boolean(required=True)
    object = fields.Constant("list", required=True, metadata={"type": "string"})
    matched_count = fields.Integer(
        required=True,
        data_key="matched_count",
        metadata={"description": "Workflows that run for it."},
    )
    data = fields.List(fields.Nested(DeliveredEventSchema), required=True)


class DeliveredSchema(Named):
    """What a delivery for one workflow came to."""

    matched = fields.Boolean(
        required=True,
        metadata={"description": "The filters of a trigger match, or there are none."},
    )
    mismatch = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "Of a sample: why an event such as this would be ignored."},
    )
    trigger_event = fields.Nested(
        TriggerEventSchema,
        required=True,
        allow_none=True,
        metadata={"description": "Null where another request had the same idempotencyKey."},
    )
    run = fields.Nested(RunSchema, required=True)


class DeliveredAnswer(Named):
    """What a delivery for one workflow came to."""

    data = fields.Nested(DeliveredSchema, required=True)
