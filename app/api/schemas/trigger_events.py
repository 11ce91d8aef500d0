"""Deliveries in requests and answers."""

from __future__ import annotations

from marshmallow import fields, validate

from app.api.schemas.base import (
    CREATED_AFTER,
    CREATED_BEFORE,
    ListAnswer,
    Moment,
    Named,
    PageQuery,
    Statuses,
    Text,
    id_cursor,
    moment,
)
from app.store.schema import EVENT_STATUSES

TYPE = "[A-Za-z0-9][A-Za-z0-9_.:-]*"


class TriggerEventsQuery(PageQuery):
    """Which deliveries to list."""

    cursor = id_cursor("tev")
    status = Statuses(EVENT_STATUSES)
    trigger_type = Text(1, 64, pattern=TYPE)
    created_after = Moment(CREATED_AFTER)
    created_before = Moment(CREATED_BEFORE)


class TriggerSummaryQuery(PageQuery):
    """Which part of the summaries is wanted; each is named by its last event."""

    cursor = id_cursor("tev")


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
    payload = fields.Dict(
        required=True,
        metadata={
            "description": "What was delivered. Of a long one that started nothing only its size is"
            " kept, as `omittedBytes`."
        },
    )
    created_at = moment("When it was delivered.", nullable=False)


class TriggerEventList(ListAnswer):
    """Deliveries, newest first."""

    data = fields.List(fields.Nested(TriggerEventSchema), required=True)


def _count(told: str) -> fields.Integer:
    return fields.Integer(required=True, metadata={"description": told})


class TriggerSummarySchema(Named):
    """What has come for a workflow of one type."""

    trigger_type = fields.String(required=True)
    total_count = _count("Deliveries in all.")
    matched_count = _count("Those that have started a run.")
    ignored_count = _count("Those that did not match, or could not be taken.")
    failed_count = _count("Those whose run could not be started.")
    unauthorized_count = _count("Those without a valid signature.")
    last_received_at = moment("When the last one came.")
    last_matched_at = moment("When the last one started a run.")
    last_ignored_at = moment("When the last one was ignored.")
    last_failed_at = moment("When the last one failed.")
    last_unauthorized_at = moment("When the last one was not authorized.")
    last_run_id = fields.String(required=True, allow_none=True)
    last_run_status = fields.String(
        required=True, allow_none=True, metadata={"description": "Null where it was deleted."}
    )
    last_run_at = moment("When the last run was created.")
    last_event = fields.Nested(TriggerEventSchema, required=True, allow_none=True)
    last_matched_event = fields.Nested(TriggerEventSchema, required=True, allow_none=True)


class TriggerSummaryList(ListAnswer):
    """What has come for a workflow by type, the latest first."""

    data = fields.List(fields.Nested(TriggerSummarySchema), required=True)
