"""Deliveries in requests and answers."""

from __future__ import annotations

from marshmallow import fields, validate

from app.api.schemas.base import Named, moment
from app.store.schema import EVENT_STATUSES


class TriggerEventSchema(Named):
    """EVENT: something that was delivered, and what it came to."""

    id = fields.String(required=True)
    metronome_id = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "Null where no workflow listens for such events."},
    )
    user_id = fields.String(
        required=True, allow_none=True, metadata={"description": "The workflow's owner."}
    )
    run_id = fields.String(
        required=True, allow_none=True, metadata={"description": "The run that it started."}
    )
    trigger_type = fields.String(required=True)
    status = fields.String(required=True, validate=validate.OneOf(EVENT_STATUSES))
    source_event_id = fields.String(
        required=True, allow_none=True, metadata={"description": "Its id where it came from."}
    )
    summary = fields.String(required=True, allow_none=True)
    reason = fields.String(
        required=True, allow_none=True, metadata={"description": "Why it started no run."}
    )
    payload = fields.Dict(required=True)
    created_at = moment("When it was delivered.", nullable=False)
