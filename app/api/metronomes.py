"""Workflows over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response

from app.api import dump, etag, idempotency
from app.api.blueprint import Blueprint
from app.api.context import actor, db
from app.api.paging import listed, page
from app.api.schemas.base import DeletedAnswer, NoQuery
from app.api.schemas.metronomes import (
    MetronomeAnswer,
    MetronomeBody,
    MetronomeChanges,
    MetronomeList,
    MetronomesQuery,
)
from app.domain.models import Metronome
from app.domain.roles import Permission
from app.services import metronomes as service
from app.store.metronome_list import MetronomeFilter

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
    wanted = MetronomeFilter(
        statuses=query["status"],
        include_archived=query["include_archived"],
        search=query.get("q"),
        created_after=query.get("created_after"),
        created_before=query.get("created_before"),
    )
    found = service.page(db(), actor(), wanted, page(query))
    return dump.answer(listed(found, query["limit"], dump.metronome, lambda one: one.id))


@metronomes.operation(
    "POST",
    "",
    MetronomeAnswer,
    needs=Permission.EDIT,
    status=201,
    told="The workflow is created.",
    also={200: "The idempotency key was used before: the workflow of then, as it is now."},
    body=MetronomeBody,
    takes=[idempotency.IDEMPOTENCY_KEY],
    headers={**etag.HEADERS, **idempotency.HEADERS},
    example=_EXAMPLE,
)
def create_metronome(body: dict[str, Any]) -> Response:
    """Create a workflow.

    Its definition is checked: kinds, configs, edges, cycles and sizes. Without one it is empty.
    Sent again with the same idempotency key within 24 hours, the request creates nothing; with the
    same key and another body it is refused with the code `idempotency_key_reused`.
    """
    key = idempotency.key(body.pop("idempotency_key", None))
    made, new = service.create_once(db(), actor(), body, key=key)
    return _answer(made, 201 if new else 200, idempotency.headers(new, made.id))


@metronomes.operation(
    "GET",
    "/<workflow:metronomeId>",
    MetronomeAnswer,
    query=NoQuery,
    bare={304: "The caller has it as it is: see If-None-Match."},
    takes=[etag.IF_NONE_MATCH],
    headers=etag.HEADERS,
)
def get_metronome(_: dict[str, Any], metronome_id: str) -> Response:
    """Get a workflow."""
    found = service.get(db(), actor(), metronome_id)
    return etag.not_modified(found.revision) or _answer(found)


@metronomes.operation(
    "PATCH",
    "/<workflow:metronomeId>",
    MetronomeAnswer,
    needs=Permission.EDIT,
    body=MetronomeChanges,
    takes=[etag.IF_MATCH],
    refuses=[409, 412],
    headers=etag.HEADERS,
)
def update_metronome(body: dict[str, Any], metronome_id: str) -> Response:
    """Change a workflow.

    Only what is named changes. Runs that exist keep the definition with which they were created.
    An archived workflow comes back with another status. The triggers of what is published listen
    while the status is `active`. A published workflow is active or paused: `draft` leaves its
    status as it is, and unpublishing makes it a draft. With `If-Match`, nothing changes if somebody
    else was faster: 412.
    """
    changed = service.update(db(), actor(), metronome_id, body, expected=etag.expected())
    return _answer(changed.metronome)


@metronomes.operation(
    "DELETE",
    "/<workflow:metronomeId>",
    DeletedAnswer,
    needs=Permission.EDIT,
    takes=[etag.IF_MATCH],
    refuses=[412],
)
def delete_metronome(metronome_id: str) -> Response:
    """Archive a workflow.

    It takes no new runs. Its runs stay, and those that are active go on.
    """
    service.archive(db(), actor(), metronome_id, expected=etag.expected())
    return dump.answer({"success": True, "deleted": True})


def _answer(
    metronome: Metronome, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    more = {**etag.headers(metronome.revision), **(headers or {})}
    return dump.answer({"data": dump.metronome(metronome)}, status, more)
