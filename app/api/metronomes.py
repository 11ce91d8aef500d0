"""Workflows over HTTP."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import dump
from app.api.blueprint import Blueprint
from app.api.context import actor, db
from app.api.paging import listed
from app.api.schemas.base import DeletedAnswer
from app.api.schemas.metronomes import (
    MetronomeAnswer,
    MetronomeBody,
    MetronomeChanges,
    MetronomeList,
    MetronomesQuery,
)
from app.domain.roles import Permission
from app.services import metronomes as service

metronomes = Blueprint("metronomes", prefix="/v1/metronomes", description="Workflows.")

_EXAMPLE = {
    "name": "Greeting",
    "status": "draft",
    "definition": {
        "nodes": [
            {"id": "start", "kind": "trigger", "subtype": "manual"},
            {
                "id": "greet",
                "kind": "transform",
                "config": {"output": {"text": "Hello {{ trigger.input.name }}"}},
            },
            {"id": "finish", "kind": "end"},
        ],
        "edges": [
            {"id": "e1", "source": "start", "target": "greet"},
            {"id": "e2", "source": "greet", "target": "finish"},
        ],
    },
}


@metronomes.operation("GET", "", MetronomeList, query=MetronomesQuery)
def list_metronomes(query: dict[str, Any]) -> Response:
    """List workflows.

    Newest first; archived ones only where they are asked for.
    """
    found = service.page(
        db(),
        actor(),
        statuses=query["status"],
        include_archived=query["include_archived"],
        limit=query["limit"] + 1,
        offset=query["offset"],
    )
    return dump.answer(listed(found, query["limit"], dump.metronome, lambda one: one.id))


@metronomes.operation(
    "POST",
    "",
    MetronomeAnswer,
    needs=Permission.EDIT,
    status=201,
    body=MetronomeBody,
    example=_EXAMPLE,
)
def create_metronome(body: dict[str, Any]) -> Response:
    """Create a workflow.

    Its definition is checked: kinds, configs, edges, cycles and sizes. Without one it is empty.
    """
    return dump.answer({"data": dump.metronome(service.create(db(), actor(), **body))}, 201)


@metronomes.operation("GET", "/<metronomeId>", MetronomeAnswer)
def get_metronome(metronome_id: str) -> Response:
    """Get a workflow."""
    return dump.answer({"data": dump.metronome(service.get(db(), actor(), metronome_id))})


@metronomes.operation(
    "PATCH", "/<metronomeId>", MetronomeAnswer, needs=Permission.EDIT, body=MetronomeChanges
)
def update_metronome(body: dict[str, Any], metronome_id: str) -> Response:
    """Change a workflow.

    Only what is named changes. Runs that exist keep the definition with which they were created.
    An archived workflow comes back with another status.
    """
    changed = service.update(db(), actor(), metronome_id, body)
    return dump.answer({"data": dump.metronome(changed)})


@metronomes.operation("DELETE", "/<metronomeId>", DeletedAnswer, needs=Permission.EDIT)
def delete_metronome(metronome_id: str) -> Response:
    """Archive a workflow.

    It takes no new runs. Its runs stay, and those that are active go on.
    """
    service.archive(db(), actor(), metronome_id)
    return dump.answer({"success": True, "deleted": True})
