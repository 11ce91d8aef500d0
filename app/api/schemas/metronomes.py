"""Workflows in requests and answers."""

from __future__ import annotations

from marshmallow import fields, validate

from app.api.idempotency import MAX_KEY
from app.api.schemas.base import (
    CREATED_AFTER,
    CREATED_BEFORE,
    Choice,
    Input,
    JsonObject,
    ListAnswer,
    Moment,
    Name,
    Named,
    PageQuery,
    QueryFlag,
    Statuses,
    Text,
    id_cursor,
    moment,
)
from app.store.schema import METRONOME_STATUSES, ON_LIMIT

_NOT_ARCHIVED = tuple(status for status in METRONOME_STATUSES if status != "archived")

_DEFINITION = {
    "description": "`nodes` and `edges`. Two shapes of nodes are understood; answers have the"
    " shape that was given."
}


MAX_CONCURRENT_RUNS = 10_000
_LIMIT = {"description": "How many runs of a group may be at work at once."}
_ON_LIMIT = {
    "description": "What becomes of a run too many: it waits (`queue`), it is refused with 409"
    " (`reject`), or the oldest one is cancelled (`cancel_oldest`)."
}
_KEY = {
    "description": "An expression that tells a run's group, such as `trigger.input.customer`;"
    " without one all runs are one group."
}


class ConcurrencyBody(Input):
    """How many runs may be at work at once."""

    max_concurrent_runs = fields.Integer(
        required=True,
        strict=True,
        validate=validate.Range(1, MAX_CONCURRENT_RUNS),
        metadata=_LIMIT,
    )
    on_limit = Choice(ON_LIMIT, load_default="queue", metadata=_ON_LIMIT)
    key = Text(1, 1_000, allow_none=True, load_default=None, metadata=_KEY)


class MetronomeBody(Input):
    """A workflow that is to be created."""

    name = Name(required=True)
    definition = JsonObject(metadata=_DEFINITION)
    description = Text(0, 10_000, allow_none=True)
    status = Choice(_NOT_ARCHIVED)
    trigger_summary = Text(0, 1_000, allow_none=True)
    concurrency = fields.Nested(ConcurrencyBody, allow_none=True)
    idempotency_key = Text(
        1,
        MAX_KEY,
        allow_none=True,
        metadata={"description": "The same as the header `Idempotency-Key`."},
    )


class MetronomeChanges(Input):
    """What is to be changed; null clears description, triggerSummary and concurrency."""

    name = Name()
    definition = JsonObject(metadata=_DEFINITION)
    description = Text(0, 10_000, allow_none=True)
    status = Choice(METRONOME_STATUSES)
    trigger_summary = Text(0, 1_000, allow_none=True)
    concurrency = fields.Nested(ConcurrencyBody, allow_none=True)


class MetronomesQuery(PageQuery):
    """Which workflows to list."""

    cursor = id_cursor("met")
    status = Statuses(METRONOME_STATUSES)
    include_archived = QueryFlag(
        load_default=False,
        metadata={"description": "Archived ones as well; not needed beside `status`."},
    )
    q = Text(0, 200, metadata={"description": "A part of the name, in any case."})
    created_after = Moment(CREATED_AFTER)
    created_before = Moment(CREATED_BEFORE)


class ConcurrencySchema(Named):
    """How many runs may be at work at once."""

    max_concurrent_runs = fields.Integer(required=True, metadata=_LIMIT)
    on_limit = fields.String(required=True, validate=validate.OneOf(ON_LIMIT), metadata=_ON_LIMIT)
    key = fields.String(required=True, allow_none=True, metadata=_KEY)


class MetronomeSchema(Named):
    """METRONOME."""

    id = fields.String(required=True)
    user_id = fields.String(required=True, metadata={"description": "Its owner."})
    name = fields.String(required=True)
    description = fields.String(required=True, allow_none=True)
    status = fields.String(required=True, validate=validate.OneOf(METRONOME_STATUSES))
    definition = fields.Dict(required=True, metadata={"description": "The draft, as it was given."})
    trigger_summary = fields.String(required=True, allow_none=True)
    published_version_id = fields.String(required=True, allow_none=True)
    published_version_number = fields.Integer(required=True, allow_none=True)
    concurrency = fields.Nested(
        ConcurrencySchema,
        required=True,
        allow_none=True,
        metadata={"description": "null: any number of runs may be at work."},
    )
    revision = fields.Integer(
        required=True, metadata={"description": "Counts its changes; in quotes, it is the ETag."}
    )
    created_at = moment("When it was created.", nullable=False)
    updated_at = moment("When it was last changed.", nullable=False)


class MetronomeAnswer(Named):
    """One workflow."""

    data = fields.Nested(MetronomeSchema, required=True)


class MetronomeList(ListAnswer):
    """Workflows, newest first."""

    data = fields.List(fields.Nested(MetronomeSchema), required=True)
