"""Audit events over HTTP."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from flask import Response

from app.api import dump
from app.api.blueprint import Blueprint
from app.api.context import actor, db
from app.api.paging import listed, page
from app.api.schemas.audit import AuditList, AuditQuery
from app.services import audit as service
from app.store.audit import AuditFilter

audit = Blueprint("audit", prefix="/v1/metronomes", description="Who changed what, and when.")


@audit.operation("GET", "/audit-events", AuditList, query=AuditQuery)
def list_audit_events(query: dict[str, Any]) -> Response:
    """List what was changed in the organization, newest first.

    Every change is written down by the statement that makes it: there is none without its event.
    """
    wanted = AuditFilter(
        metronome_id=query.get("metronome_id"),
        run_id=query.get("run_id"),
        version_id=query.get("version_id"),
        actions=query["action"],
        actor_user_id=query.get("actor_user_id"),
        created_after=query.get("created_after"),
        created_before=query.get("created_before"),
    )
    found = service.page(db(), actor(), wanted, page(query))
    return dump.answer(listed(found, query["limit"], dump.audit_event, attrgetter("id")))
