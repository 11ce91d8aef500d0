"""Whether definitions are sound, over HTTP, and what they are made of."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import dump
from app.api.blueprint import Blueprint
from app.api.context import actor, connectors, db
from app.api.schemas.base import NoQuery
from app.api.schemas.validation import (
    DefinitionToValidate,
    NodeSchemasAnswer,
    ValidationAnswer,
    ValidationBody,
)
from app.domain.roles import Permission
from app.nodes.schemas import node_schemas
from app.services import validation as service
from app.services.validation import Subject

validation = Blueprint(
    "validation", prefix="/v1/metronomes", description="What is wrong with definitions."
)

_EXAMPLE = {
    "mode": "publish",
    "definition": {
        "nodes": [{"id": "start", "kind": "trigger"}, {"id": "finish", "kind": "end"}],
        "edges": [{"id": "e1", "source": "start", "target": "finish"}],
    },
}


@validation.operation("GET", "/node-schemas", NodeSchemasAnswer, query=NoQuery)
def get_node_schemas(_: dict[str, Any]) -> Response:
    """Get the node kinds.

    Each kind and each type of trigger with the JSON Schema of its config.
    """
    return dump.answer({"data": node_schemas()})


@validation.operation(
    "POST",
    "/validate",
    ValidationAnswer,
    needs=Permission.EDIT,
    body=DefinitionToValidate,
    example=_EXAMPLE,
)
def validate_definition(body: dict[str, Any]) -> Response:
    """Validate a definition.

    Nothing is saved. What is wrong with it is in the answer, with the status 200.
    """
    return _validated(None, body)


@validation.operation(
    "POST",
    "/<metronomeId>/validate",
    ValidationAnswer,
    needs=Permission.EDIT,
    body=ValidationBody,
    example={"mode": "publish"},
)
def validate_metronome(body: dict[str, Any], metronome_id: str) -> Response:
    """Validate a workflow.

    Its draft, a version of it, or a definition that it might have. Nothing is saved.
    """
    return _validated(metronome_id, body)


def _validated(metronome_id: str | None, body: dict[str, Any]) -> Response:
    subject = Subject(body.get("definition"), body.get("version_id"))
    found = service.validate(db(), actor(), metronome_id, subject, body["mode"], connectors())
    return dump.answer({"data": dump.validation(found, body["mode"])})
