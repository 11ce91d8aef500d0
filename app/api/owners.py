"""Owners of workflows over HTTP."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import dump, etag
from app.api.blueprint import Blueprint
from app.api.context import actor, db
from app.api.paging import listed, page
from app.api.schemas.metronomes import MetronomeAnswer
from app.api.schemas.owners import CandidateList, CandidatesQuery, OwnerBody
from app.domain.roles import Permission
from app.services import owners as service

owners = Blueprint(
    "owners", prefix="/v1/metronomes/<metronomeId>", description="Owners of workflows."
)


@owners.operation("GET", "/owner-candidates", CandidateList, query=CandidatesQuery)
def list_owner_candidates(query: dict[str, Any], metronome_id: str) -> Response:
    """List who could own a workflow.

    The users of the organization that have an API key which is not revoked, by id.
    """
    found = service.candidates(db(), actor(), metronome_id, page(query))
    return dump.answer(listed(found, query["limit"], dump.owner_candidate, lambda one: one.user_id))


@owners.operation(
    "PATCH",
    "/owner",
    MetronomeAnswer,
    needs=Permission.ADMIN,
    body=OwnerBody,
    takes=[etag.IF_MATCH],
    refuses=[412],
    headers=etag.HEADERS,
    example={"ownerUserId": "ada"},
)
def transfer_ownership(body: dict[str, Any], metronome_id: str) -> Response:
    """Give a workflow to another user of the organization.

    Its triggers start runs for the new owner from now on. Runs that exist keep theirs.
    """
    changed = service.transfer(
        db(), actor(), metronome_id, body["owner_user_id"], expected=etag.expected()
    )
    return dump.answer({"data": dump.metronome(changed)}, headers=etag.headers(changed.revision))
