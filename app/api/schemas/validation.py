"""What is to be validated, and what was found."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from app.api.schemas.base import Choice, Input, JsonObject, Named, OptionalBody, Text
from app.services.validation import MODES

_MODE = {
    "description": "`shape`: whether it can be saved. `publish`: whether it can be published, too."
}
_DEFINITION = {"description": "`nodes` and `edges`; what is wrong with it is answered as issues."}
_NODES = {"description": "Instead of `definition`: its nodes."}
_EDGES = {"description": "With `nodes`: its edges."}
_VERSION = {"description": "Instead of a definition: a version of the workflow."}


class _Body(Input):
    """A definition in one piece, or in two."""

    mode = Choice(MODES, load_default="publish", metadata=_MODE)
    definition = JsonObject(metadata=_DEFINITION)
    nodes = fields.List(fields.Raw(), metadata=_NODES)
    edges = fields.List(fields.Raw(), metadata=_EDGES)

    @ma.validates_schema
    def _check_one(self, data: dict[str, Any], **_: Any) -> None:
        named = [name for name in ("nodes", "edges") if name in data]
        if "definition" in data and named:
            raise ma.ValidationError("is not needed beside definition", named[0])
        if named == ["edges"]:
            raise ma.ValidationError("says nothing without nodes", "edges")

    @ma.post_load
    def _make_one(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if "nodes" in data:
            data["definition"] = {"nodes": data.pop("nodes"), "edges": data.pop("edges", [])}
        return data


class DefinitionToValidate(_Body):
    """A definition that belongs to no workflow."""

    @ma.validates_schema
    def _check_given(self, data: dict[str, Any], **_: Any) -> None:
        if not {"definition", "nodes", "edges"} & data.keys():
            raise ma.ValidationError("is missing: what is to be validated?", "definition")


class ValidationBody(_Body, OptionalBody):
    """What is to be validated of a workflow; its draft where nothing is named."""

    version_id = Text(1, 200, metadata=_VERSION)

    @ma.validates_schema
    def _check_version(self, data: dict[str, Any], **_: Any) -> None:
        if "version_id" in data and {"definition", "nodes", "edges"} & data.keys():
            raise ma.ValidationError("is not needed beside a definition", "versionId")


class IssueSchema(Named):
    """One fault of a definition."""

    level = fields.String(required=True, validate=validate.OneOf(("error", "warning")))
    code = fields.String(required=True, metadata={"description": "For programs."})
    node_id = fields.String(required=True, allow_none=True)
    edge_id = fields.String(required=True, allow_none=True)
    field = fields.String(
        required=True, metadata={"description": "Such as `definition.nodes.2.config.url`."}
    )
    message = fields.String(required=True, metadata={"description": "For people."})


class ValidationSchema(Named):
    """What was found."""

    valid = fields.Boolean(required=True, metadata={"description": "No issue is an error."})
    mode = fields.String(required=True, validate=validate.OneOf(MODES))
    issues = fields.List(
        fields.Nested(IssueSchema),
        required=True,
        metadata={"description": "At most 100, errors first."},
    )


class ValidationAnswer(Named):
    """The result of a validation."""

    data = fields.Nested(ValidationSchema, required=True)


class HandleSchema(Named):
    """A handle by which edges leave nodes of a kind."""

    handle = fields.String(
        required=True,
        metadata={"description": "`{conditions.id}` stands for the ids in that field."},
    )
    description = fields.String(required=True, metadata={"description": "When they are taken."})


class NodeKindSchema(Named):
    """A kind of node."""

    kind = fields.String(required=True)
    subtypes = fields.List(
        fields.String(), required=True, metadata={"description": "Those that mean something."}
    )
    title = fields.String(required=True)
    description = fields.String(required=True)
    config_schema = fields.Dict(
        required=True,
        metadata={"description": "JSON Schema 2020-12. A draft may lack what is required."},
    )
    output_schema = fields.Dict(required=True, metadata={"description": "JSON Schema 2020-12."})
    handles = fields.List(fields.Nested(HandleSchema), required=True)
    interruptible = fields.Boolean(
        required=True, metadata={"description": "A cancel ends a node in flight at once."}
    )
    replay_safe = fields.Boolean(
        required=True, metadata={"description": "Every node may run twice without harm."}
    )
    replay_safe_where = fields.String(
        required=True, allow_none=True, metadata={"description": "Else: those that may."}
    )


class TriggerTypeSchema(Named):
    """A type of triggers: the `subtype` of a trigger node."""

    type = fields.String(required=True)
    description = fields.String(required=True)
    config_schema = fields.Dict(required=True)


class OperatorSchema(Named):
    """An operator of conditions."""

    operator = fields.String(required=True)
    description = fields.String(required=True)


class NodeSchemasSchema(Named):
    """All that definitions are made of."""

    kinds = fields.List(fields.Nested(NodeKindSchema), required=True)
    trigger_types = fields.List(fields.Nested(TriggerTypeSchema), required=True)
    condition_operators = fields.List(fields.Nested(OperatorSchema), required=True)
    loop_types = fields.List(fields.String(), required=True)


class NodeSchemasAnswer(Named):
    """The node kinds."""

    data = fields.Nested(NodeSchemasSchema, required=True)
