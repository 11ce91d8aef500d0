"""Publishing over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response

from app.api import dump, etag
from app.api.blueprint import Blueprint
from app.api.context import actor, connectors, db
from app.api.paging import listed, page
from app.api.schemas.metronomes import MetronomeAnswer
from app.api.schemas.versions import (
    DeploymentList,
    DeploymentsQuery,
    PublishBody,
    PublishVersionBody,
    UnpublishBody,
)
from app.domain.models import Metronome
from app.domain.roles import Permission
from app.services import publishing as service

publishing = Blueprint(
    "publishing",
    prefix="/v1/metronomes/<metronomeId>",
    description="Which version of a workflow runs, and what its triggers start.",
)

_CHANGES = ("definition", "description")


@publishing.operation(
    "POST",
    "/versions/<versionId>/publish",
    MetronomeAnswer,
    needs=Permission.EDIT,
    told="The version is published, and the workflow active.",
    body=PublishVersionBody,
    takes=[etag.IF_MATCH],
    refuses=[409, 412],
    headers=etag.HEADERS,
)
def publish_version(body: dict[str, Any], metronome_id: str, version_id: str) -> Response:
    """Publish a version.

    A `definition` and a `description`, or a `snapshot` with them, change it first, in the same
    transaction. The version that was published before is saved again. What can't be published is
    refused with the code `not_publishable` and the faults by field.
    """
    changes = _changes({**body, **(body.get("snapshot") or {})})
    return _publish(metronome_id, version_id, changes)


@publishing.operation(
    "POST",
    "/publish",
    MetronomeAnswer,
    needs=Permission.EDIT,
    told="The workflow is published, or unpublished where `active` is false.",
    body=PublishBody,
    takes=[etag.IF_MATCH],
    refuses=[409, 412],
    headers=etag.HEADERS,
    example={"active": True, "description": "Greets politely."},
)
def publish(body: dict[str, Any], metronome_id: str) -> Response:
    """Publish or unpublish a workflow.

    With a `versionId` it is that version, as if it were published by itself. Without one it is the
    draft: the newest saved version that equals it, else a new one. A `definition` becomes the draft
    first.
    """
    if not body["active"]:
        return _unpublish(metronome_id, body.get("description"))
    return _publish(metronome_id, body.get("version_id"), _changes(body))


@publishing.operation(
    "POST",
    "/unpublish",
    MetronomeAnswer,
    needs=Permission.EDIT,
    told="Nothing of the workflow is published, and it is a draft.",
    body=UnpublishBody,
    takes=[etag.IF_MATCH],
    refuses=[409, 412],
    headers=etag.HEADERS,
)
def unpublish(body: dict[str, Any], metronome_id: str) -> Response:
    """Unpublish a workflow.

    Its triggers start nothing more. Its versions stay, and runs go on.
    """
    return _unpublish(metronome_id, body.get("description"))


@publishing.operation("GET", "/deployments", DeploymentList, query=DeploymentsQuery)
def list_deployments(query: dict[str, Any], metronome_id: str) -> Response:
    """List what was published and unpublished of a workflow, newest first."""
    found = service.deployments(db(), actor(), metronome_id, page(query))
    return dump.answer(listed(found, query["limit"], dump.deployment, lambda one: one.id))


def _changes(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in _CHANGES if name in body}


def _publish(metronome_id: str, version_id: str | None, changes: dict[str, Any]) -> Response:
    expected = etag.expected()
    if version_id is None:
        return _answer(
            service.publish_draft(
                db(), actor(), metronome_id, changes, expected=expected, connectors=connectors()
            )
        )
    return _answer(
        service.publish(
            db(),
            actor(),
            metronome_id,
            version_id,
            changes,
            expected=expected,
            connectors=connectors(),
        )
    )


def _unpublish(metronome_id: str, description: str | None) -> Response:
    return _answer(
        service.unpublish(
            db(), actor(), metronome_id, description=description, expected=etag.expected()
        )
    )


def _answer(metronome: Metronome) -> Response:
    return dump.answer(
        {"data": dump.metronome(metronome)}, headers=etag.headers(metronome.revision)
    )
