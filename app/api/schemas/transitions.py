"""What may be asked of a run, and what waits for a person."""

from __future__ import annotations

from marshmallow import fields, validate

from app.api.schemas.base import (
    Choice,
    Cursor,
    Flag,
    ListAnswer,
    Named,
    OptionalBody,
    PageQuery,
    Text,
    moment,
)
from app.domain.lifecycle import RUN_STATUSES


class ResumeBody(OptionalBody):
    """How a paused run is to go on."""

    confirm_in_doubt_replay = Flag(
        load_default=False,
        metadata={"description": "Run nodes again that may have run before."},
    )


class RetryBody(OptionalBody):
    """Where a run is to begin once more."""

    start = Choice(
        ("start", "failed"),
        data_key="from",
        load_default="start",
        metadata={"description": "`failed`: behind the nodes that have finished."},
    )


class ApprovalsQuery(PageQuery):
    """Which part of what waits is wanted."""

    cursor = Cursor("step_[A-Za-z0-9]+_[0-9]{6,9}")


class DecisionBody(OptionalBody):
    """What is decided, and of which step; without one it is that which has waited longest."""

    decision = Choice(("approved", "rejected"), load_default="approved")
    comment = Text(
        0, 10_000, allow_none=True, metadata={"description": "Kept in the step's output."}
    )
    node_id = Text(1, 255, allow_none=True)
    step_id = Text(1, 255, allow_none=True)


class ApprovalSchema(Named):
    """A step that waits for a person to decide."""

    run_id = fields.String(required=True)
    metronome_id = fields.String(required=True)
    step_id = fields.String(required=True)
    node_id = fields.String(required=True)
    run_status = fields.String(required=True, validate=validate.OneOf(RUN_STATUSES))
    title = fields.String(required=True, allow_none=True)
    message = fields.String(required=True, allow_none=True)
    deadline = moment("When it is too late to decide.")
    requested_at = moment("Since when it waits.", nullable=False)


class ApprovalList(ListAnswer):
    """What waits for a decision, the oldest run first."""

    data = fields.List(fields.Nested(ApprovalSchema), required=True)
