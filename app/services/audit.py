"""Audit events: who changed what, and when."""

from __future__ import annotations

from app.db import Database
from app.domain.models import Actor, AuditEvent, Page
from app.store import audit
from app.store.audit import AuditFilter


def page(db: Database, actor: Actor, wanted: AuditFilter, part: Page) -> list[AuditEvent]:
    """The events of the organization, newest first; what is unknown has none."""
    return db.read(lambda connection: audit.page(connection, actor.organization_id, wanted, part))
