"""Whether the process lives, and whether it can serve: for load balancers and supervisors."""

from __future__ import annotations

from flask import Response
from marshmallow import fields

from app.api import dump
from app.api.blueprint import Blueprint
from app.api.context import db
from app.api.schemas.base import Named
from app.services import health as service

health = Blueprint("health", prefix="", description="No API key is needed here.", public=True)


class AliveAnswer(Named):
    """The process answers."""

    status = fields.String(required=True)


class ReadyAnswer(Named):
    """All that was checked."""

    status = fields.String(required=True)
    checks = fields.Dict(required=True, keys=fields.String(), values=fields.String())


@health.operation("GET", "/healthz", AliveAnswer)
def get_health() -> Response:
    """Is this process alive?

    It looks at nothing else.
    """
    return dump.answer({"status": "alive"})


@health.operation("GET", "/readyz", ReadyAnswer, refuses=[503])
def get_readiness() -> Response:
    """Can this process serve?

    The database can be reached, its schema is current, and an executor was seen lately; 503 names
    what is missing.
    """
    return dump.answer({"status": "ready", "checks": service.check(db())})
