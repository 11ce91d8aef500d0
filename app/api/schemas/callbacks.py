"""What remote sides send of the steps that they work on."""

from __future__ import annotations

from marshmallow import fields, validate

from app.api.schemas.base import Flag, Input, JsonObject, Named, Text
from app.api.schemas.runs import StepSchema
from app.domain.lifecycle import RUN_STATUSES, STEP_STATUSES

MAX_ERROR = 10_000  # characters


class CompleteBody(Input):
    """The work is done."""

    output = JsonObject(load_default=dict, metadata={"description": "The step's output."})


class FailBody(Input):
    """The work has failed."""

    error = Text(1, MAX_ERROR, required=True, metadata={"description": "Why, for people."})
    retryable = Flag(
        load_default=True,
        metadata={"description": "Whether the node's `retry` applies, or it fails for good."},
    )


class CallbackAnswer(Named):
    """The step as it is now."""

    data = fields.Nested(StepSchema, required=True)


class HeartbeatSchema(Named):
    """Whether the work is still wanted."""

    status = fields.String(
        required=True,
        validate=validate.OneOf(STEP_STATUSES),
        metadata={"description": "Of the step; where it has ended, nobody waits for it."},
    )
    run_status = fields.String(required=True, validate=validate.OneOf(RUN_STATUSES))


class HeartbeatAnswer(Named):
    """Whether the work is still wanted."""

    data = fields.Nested(HeartbeatSchema, required=True)
