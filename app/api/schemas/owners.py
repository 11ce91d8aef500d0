"""Owners of workflows in requests and answers."""

from __future__ import annotations

from marshmallow import fields, validate

from app.api import paging
from app.api.schemas.base import Input, ListAnswer, Named, Query, QueryNumber, Text
from app.domain.roles import ROLES

MAX_CANDIDATES = 1_000


class OwnerBody(Input):
    """Who is to own the workflow."""

    owner_user_id = Text(
        1, 255, required=True, metadata={"description": "One of the owner candidates."}
    )


class CandidatesQuery(Query):
    """Which part of the candidates is wanted."""

    limit = QueryNumber(1, MAX_CANDIDATES, MAX_CANDIDATES, "How many, at the most.")
    offset = QueryNumber(0, paging.MAX_OFFSET, 0, "How many to pass over.")
    cursor = Text(
        1,
        255,
        metadata={"description": "The `next_cursor` of the page before: what comes behind it."},
    )


class CandidateSchema(Named):
    """A user who could own the workflow."""

    id = fields.String(required=True, metadata={"description": "The same as userId."})
    user_id = fields.String(required=True)
    role = fields.String(
        required=True,
        validate=validate.OneOf(ROLES),
        metadata={"description": "The role that may do most, of the user's keys."},
    )
    is_owner = fields.Boolean(required=True)


class CandidateList(ListAnswer):
    """Users of the organization that have a key, by id."""

    data = fields.List(fields.Nested(CandidateSchema), required=True)
