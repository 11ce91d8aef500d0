"""Versions of workflows over HTTP."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import dump, idempotency
from app.api.blueprint import Blueprint
from app.api.context import actor, db
from app.api.paging import listed, page
from app.api.schemas.base import DeletedAnswer
from app.api.schemas.versions import (
    DiffAnswer,
    DiffQuery,
    VersionAnswer,
    VersionBody,
    VersionChanges,
    VersionList,
    VersionQuery,
    VersionsQuery,
)
from app.domain.roles import Permission
from app.services import versions as service
from app.store.versions import VersionFilter

versions = Blueprint(
    "versions",
    prefix="/v1/metronomes/<metronomeId>/versions",
    description="Saved definitions of workflows, numbered from 0.",
)

_CHANGES: tuple[str, ...] = ("definition", "description")


@versions.operation("GET", "", VersionList, query=VersionsQuery)
def list_versions(query: dict[str, Any], metronome_id: str) -> Response:
    """List the versions of a workflow.

    The newest first; deleted ones (`archived`) only where they are asked for. What was only run,
    and never saved, is not among them. A page of very big definitions ends before its `limit`.
    """
    wanted = VersionFilter(query["status"], query.get("created_after"), query.get("created_before"))
    found, fit = service.page(db(), actor(), metronome_id, page(query), wanted)
    limit = min(query["limit"], fit)
    return dump.answer(listed(found, limit, dump.version, lambda one: str(one.version)))


@versions.operation(
    "POST",
    "",
    VersionAnswer,
    needs=Permission.EDIT,
    status=201,
    told="The version is saved.",
    also={200: "The idempotency key was used before: the version of then, as it is now."},
    body=VersionBody,
    takes=[idempotency.IDEMPOTENCY_KEY],
    headers=idempotency.HEADERS,
    example={"description": "Greets politely."},
)
def create_version(body: dict[str, Any], metronome_id: str) -> Response:
    """Save a version.

    It gets the next number. Without a `definition` it is the draft as it stands; the draft itself
    stays as it is. Sent again with the same idempotency key within 24 hours, nothing is created.
    """
    saved, new = service.save(
        db(),
        actor(),
        metronome_id,
        definition=body.get("definition"),
        description=body.get("description"),
        idempotency_key=idempotency.key(body.get("idempotency_key")),
    )
    told = idempotency.headers(new, metronome_id, "versions", saved.id)
    return dump.answer({"data": dump.version(saved)}, 201 if new else 200, told)


@versions.operation("GET", "/<versionId>", VersionAnswer, query=VersionQuery)
def get_version(query: dict[str, Any], metronome_id: str, version_id: str) -> Response:
    """Get a version.

    Also one that was deleted, or was only run. Its definition may have been changed since a run
    used it: `revision` shows what it was then.
    """
    found = service.get(db(), actor(), metronome_id, version_id, revision=query["revision"])
    return dump.answer({"data": dump.version(found)})


@versions.operation(
    "PATCH",
    "/<versionId>",
    VersionAnswer,
    needs=Permission.EDIT,
    body=VersionChanges,
    refuses=[409],
)
def update_version(body: dict[str, Any], metronome_id: str, version_id: str) -> Response:
    """Change a version.

    Only what is named changes. Runs that exist keep the definition with which they were created.
    The published version can't be changed: 400 with the code `version_published`.
    """
    changes = {name: body[name] for name in _CHANGES if name in body}
    changed = service.change(db(), actor(), metronome_id, version_id, changes)
    return dump.answer({"data": dump.version(changed)})


@versions.operation(
    "DELETE", "/<versionId>", DeletedAnswer, needs=Permission.EDIT, refuses=[400, 409]
)
def delete_version(metronome_id: str, version_id: str) -> Response:
    """Delete a version.

    It is archived: in no list, and it takes no new runs. Runs that have begun go on. The published
    version can't be deleted: 400 with the code `version_published`.
    """
    service.archive(db(), actor(), metronome_id, version_id)
    return dump.answer({"success": True, "deleted": True})


@versions.operation("GET", "/<versionId>/diff", DiffAnswer, query=DiffQuery)
def diff_versions(query: dict[str, Any], metronome_id: str, version_id: str) -> Response:
    """Compare a version with another one.

    Answers what has changed from `againstVersionId`, the base, to this one, the target.
    """
    against = query["against_version_id"]
    found = service.compare(db(), actor(), metronome_id, version_id, against)
    return dump.answer({"data": dump.difference(*found)})
