"""What became of a run, in requests and answers."""

from __future__ import annotations

from marshmallow import fields, validate

from app.api.schemas.audit import AuditSchema
from app.api.schemas.base import Choice, Named, Query, moment
from app.api.schemas.runs import RunSchema, StepSchema
from app.api.schemas.trigger_events import TriggerEventSchema
from app.domain.lifecycle import TERMINAL
from app.services.timeline import MAX_AUDIT_EVENTS, MAX_BYTES, MAX_STEPS


class TimelineQuery(Query):
    """How much of a timeline is wanted."""

    view = Choice(
        ("full", "compact"),
        load_default="full",
        metadata={"description": "`compact` leaves out inputs, outputs and payloads."},
    )


class TimelineStepSchema(StepSchema):
    """A step of a timeline: STEP, without input and output where it is compact."""

    input = fields.Dict(allow_none=True)
    output = fields.Dict(allow_none=True)


class TimelineTriggerEventSchema(TriggerEventSchema):
    """What started the run: EVENT, without its payload where the timeline is compact."""

    payload = fields.Dict()


class TimelineSchema(Named):
    """A run and all that belongs to it, at one moment."""

    run = fields.Nested(RunSchema, required=True)
    trigger_event = fields.Nested(
        TimelineTriggerEventSchema,
        required=True,
        allow_none=True,
        metadata={"description": "What started it; null where nobody delivered anything."},
    )
    steps = fields.List(
        fields.Nested(TimelineStepSchema),
        required=True,
        metadata={
            "description": f"The first {MAX_STEPS:,} in the order in which they came; fewer where"
            f" their inputs and outputs are more than {MAX_BYTES // 1_000_000} MB."
        },
    )
    has_more_steps = fields.Boolean(
        required=True, metadata={"description": "There are more; the list of steps has them."}
    )
    audit_events = fields.List(
        fields.Nested(AuditSchema),
        required=True,
        metadata={"description": f"The first {MAX_AUDIT_EVENTS:,}, the oldest first."},
    )
    has_more_audit_events = fields.Boolean(
        required=True, metadata={"description": "There are more; the list of them has all."}
    )


class TimelineAnswer(Named):
    """The timeline of one run."""

    object = fields.Constant("metronome.run.timeline", required=True, metadata={"type": "string"})
    data = fields.Nested(TimelineSchema, required=True)


class ResultSchema(Named):
    """What a run came to."""

    run_id = fields.String(required=True)
    status = fields.String(required=True, validate=validate.OneOf(TERMINAL))
    output = fields.Dict(
        required=True, allow_none=True, metadata={"description": "Where it has completed."}
    )
    error = fields.String(
        required=True, allow_none=True, metadata={"description": "Where it has failed."}
    )
    completed_at = moment("When it ended.", nullable=False)


class ResultAnswer(Named):
    """The result of one run."""

    object = fields.Constant("metronome.run.result", required=True, metadata={"type": "string"})
    data = fields.Nested(ResultSchema, required=True)
