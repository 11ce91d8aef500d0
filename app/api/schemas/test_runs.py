"""Test runs in requests and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from app.api.schemas.base import Choice, Input, JsonObject, Named, Text
from app.api.schemas.runs import RunBody
from app.api.schemas.validation import IssueSchema
from app.domain.fixtures import Fixture
from app.domain.shape import MAX_NODES
from app.services.starts import RunRequest
from app.services.test_runs import SliceRequest

TRIGGER_TYPE = "manual_test"
_TYPE = "[A-Za-z0-9][A-Za-z0-9_.:-]*"


class DraftRunBody(RunBody):
    """What is to be tried out; without version and definition it is the draft."""

    version_id = Text(
        1, 100, allow_none=True, metadata={"description": "Run this version; else the draft."}
    )
    trigger_type = Text(1, 64, pattern=_TYPE, load_default=TRIGGER_TYPE)

    @ma.post_load
    def _as_request(self, data: dict[str, Any], **_: Any) -> RunRequest:
        request: RunRequest = super()._as_request(data)
        return replace(request, use="draft")


class SelectionSchema(Input):
    """One node, or several that are connected."""

    type = Choice(
        ("node", "slice"), metadata={"description": "`node` demands that there is just one."}
    )
    node_id = Text(1, 128)
    node_ids = fields.List(Text(1, 128), validate=validate.Length(1, MAX_NODES))

    @ma.validates_schema
    def _one_of_them(self, data: dict[str, Any], **_: Any) -> None:
        if ("node_id" in data) == ("node_ids" in data):
            raise ma.ValidationError("give either nodeId or nodeIds", "nodeIds")
        if data.get("type") == "node" and len(set(data.get("node_ids", ("",)))) != 1:
            raise ma.ValidationError("a selection of the type node has just one", "nodeIds")


class TriggerFixtureSchema(Input):
    """What the nodes see as `trigger`."""

    input = JsonObject(metadata={"description": "The run's input."})
    type = Text(1, 64, pattern=_TYPE, metadata={"description": "Its triggerType."})


class LoopFixtureSchema(Input):
    """What the nodes inside of a loop see as `loop`, where the loop is not selected itself."""

    index = fields.Integer(strict=True, validate=validate.Range(0))
    count = fields.Integer(strict=True, allow_none=True, validate=validate.Range(0))
    item = fields.Raw(allow_none=True)
    items = fields.List(fields.Raw(allow_none=True))
    previous = JsonObject(allow_none=True)
    outer = JsonObject(allow_none=True)


_NODE = Text(1, 128)


class FixtureSchema(Input):
    """What the nodes around the selection would have answered. Bindings in it are mere texts."""

    input = JsonObject(metadata={"description": "The run's input."})
    trigger = fields.Nested(
        TriggerFixtureSchema, metadata={"description": "The same, and the type of the trigger."}
    )
    steps = fields.Dict(
        keys=_NODE,
        values=fields.Raw(allow_none=True),
        metadata={"description": "By node id: its output; null where the node was skipped."},
    )
    branches = fields.Dict(
        keys=_NODE,
        values=_NODE,
        metadata={"description": "By node id: the branch that a condition or an approval takes."},
    )
    errors = fields.Dict(
        keys=_NODE,
        values=Text(1, 2_000),
        metadata={"description": "By node id: the error with which it failed."},
    )
    loop = fields.Nested(LoopFixtureSchema)


class SliceRunBody(DraftRunBody):
    """A part of a workflow, and what it is to be tested with."""

    selection = fields.Nested(SelectionSchema, required=True)
    fixture = fields.Nested(FixtureSchema, allow_none=True)
    trigger_type = Text(
        1, 64, pattern=_TYPE, metadata={"description": f"`{TRIGGER_TYPE}` where it is absent."}
    )

    @ma.validates_schema
    def _one_input(self, data: dict[str, Any], **_: Any) -> None:
        given = list(_inputs(data))
        if len(given) > 1:
            told = f"give either {given[0][0]} or {given[1][0]}, not both"
            raise ma.ValidationError(told, given[1][0])
        types = [data.get("trigger_type"), _trigger(data).get("type")]
        if None not in types and types[0] != types[1]:
            raise ma.ValidationError("is another one than triggerType", "fixture.trigger.type")

    @ma.post_load
    def _as_request(self, data: dict[str, Any], **_: Any) -> SliceRequest:
        selection, fixture = data.pop("selection"), data.get("fixture") or {}
        for name, value in _inputs(data):
            data |= {"input": value, "input_field": name}
        data["trigger_type"] = (
            data.get("trigger_type") or _trigger(data).get("type") or TRIGGER_TYPE
        )
        for done in ("inputs", "fixture"):
            data.pop(done, None)
        several = "node_ids" in selection
        known = {name: fixture[name] for name in ("steps", "branches", "errors") if name in fixture}
        loop = fixture.get("loop")
        return SliceRequest(
            run=super()._as_request(data),
            node_ids=tuple(selection["node_ids"] if several else [selection["node_id"]]),
            field="selection.nodeIds" if several else "selection.nodeId",
            fixture=Fixture(loop=loop, **known),
        )


def _trigger(data: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (data.get("fixture") or {}).get("trigger") or {}
    return found


def _inputs(data: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The inputs that a body has, by the fields that hold them; ``input`` and ``inputs`` first."""
    fixture = data.get("fixture") or {}
    places = (
        ("input", data),
        ("inputs", data),
        ("fixture.input", fixture),
        ("fixture.trigger.input", _trigger(data)),
    )
    return [
        (field, holder[field.rpartition(".")[2]])
        for field, holder in places
        if field.rpartition(".")[2] in holder
    ]


class PreviewNodeSchema(Named):
    """A node that would run."""

    node_id = fields.String(required=True)
    kind = fields.String(required=True)
    label = fields.String(required=True, allow_none=True)


class StandInSchema(Named):
    """What stands in for a node that is not selected."""

    node_id = fields.String(required=True)
    kind = fields.String(required=True, metadata={"description": "Of the node itself."})
    output = fields.Dict(required=True)
    branch = fields.String(required=True, allow_none=True)
    error = fields.String(
        required=True, allow_none=True, metadata={"description": "Where it fails."}
    )
    skipped = fields.Boolean(required=True)
    given = fields.Boolean(
        required=True, metadata={"description": "Whether the fixture says what it answers."}
    )


class MissingSchema(Named):
    """Something that the fixture does not say."""

    field = fields.String(required=True, metadata={"description": "Where it could be given."})
    node_id = fields.String(required=True, allow_none=True)
    reads = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "The paths that are read, or the branches that there are."},
    )
    message = fields.String(required=True)


class SideEffectSchema(Named):
    """A node that does something outside of this service when the test runs."""

    node_id = fields.String(required=True)
    kind = fields.String(required=True)
    effect = fields.String(required=True)


class PreviewSchema(Named):
    """What a test would run."""

    valid = fields.Boolean(required=True, metadata={"description": "Whether no issue is an error."})
    issues = fields.List(fields.Nested(IssueSchema), required=True)
    metronome_id = fields.String(required=True)
    version_id = fields.String(required=True, allow_none=True)
    trigger_type = fields.String(required=True)
    input = fields.Dict(required=True)
    nodes = fields.List(fields.Nested(PreviewNodeSchema), required=True)
    fixtures = fields.List(fields.Nested(StandInSchema), required=True)
    missing_fixtures = fields.List(fields.Nested(MissingSchema), required=True)
    side_effects = fields.List(fields.Nested(SideEffectSchema), required=True)
    definition = fields.Dict(
        required=True,
        allow_none=True,
        metadata={"description": "What would run; null where the definition is not sound."},
    )


class PreviewAnswer(Named):
    """The preview of a test."""

    data = fields.Nested(PreviewSchema, required=True)
