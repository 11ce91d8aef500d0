"""Workflows in requests and answers."""

from __future__ import annotations

from marshmallow import fields, validate

from app.api.schemas.base import (
    Choice,
    Input,
    JsonObject,
    ListAnswer,
    Named,
    PageQuery,
    QueryFlag,
    Statuses,
    Text,
    moment,
)
from app.store.schema import METRONOME_STATUSES

_NOT_ARCHIVED = tuple(status for status in METRONOME_STATUSES if status != "archived")

_DEFINITION = {
    "description": "`nodes` and `edges`. Two shapes of nodes are understood; answers have the"
    " shape that was given."
}


class MetronomeBody(Input):
    """A workflow that is to be created."""

    name = Text(1, 200, required=True)
    definition = JsonObject(metadata=_DEFINITION)
    description = Text(0, 10_000, allow_none=True)
    status = Choice(_NOT_ARCHIVED)
    trigger_summary = Text(0, 1_000, allow_none=True)


class MetronomeChanges(Input):
    """What is to be changed; null clears description and triggerSummary."""

    name = Text(1, 200)
    definition = JsonObject(metadata=_DEFINITION)
    description = Text(0, 10_000, allow_none=True)
    status = Choice(METRONOME_STATUSES)
    trigger_summary = Text(0, 1_000, allow_none=True)


class MetronomesQuery(PageQuery):
    """Which workflows to list."""

    status = Statuses(METRONOME_STATUSES)
    include_archived = QueryFlag(
        load_default=False,
        metadata={"description": "Archived ones as well; not needed beside `status`."},
    )


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
    created_at = moment("When it was created.", nullable=False)
    updated_at = moment("When it was last changed.", nullable=False)


class MetronomeAnswer(Named):
    """One workflow."""

    data = fields.Nested(MetronomeSchema, required=True)


class MetronomeList(ListAnswer):
    """Workflows, newest first."""

    data = fields.List(fields.Nested(MetronomeSchema), required=True)
