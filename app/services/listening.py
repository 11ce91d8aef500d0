"""What published workflows listen for, on its way into the table of triggers.

Whoever publishes, unpublishes, or changes a workflow's status or owner asks for it first, and sends
it along with the change: see ``app.store.triggers``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.schedule import first_due
from app.domain.trigger_rows import NewTrigger, rows_of
from app.store import triggers


def nothing() -> dict[str, str | None]:
    """The parameters where nothing is published, or it is being unpublished."""
    return triggers.parameters(None, [])


def of_definition(
    connection: Connection, version_id: str, definition: Mapping[str, Any]
) -> dict[str, str | None]:
    """The parameters of a version that is about to be published; the definition is sound."""
    return triggers.parameters(version_id, _rows(definition, triggers.now(connection)))


def of_published(
    connection: Connection, organization_id: str, metronome_id: str
) -> dict[str, str | None]:
    """The parameters of what the workflow has published now, in one round trip."""
    found = triggers.published(connection, organization_id, metronome_id)
    if found is None:
        return nothing()
    return triggers.parameters(found.version_id, _rows(found.definition, found.now))


def _rows(definition: Mapping[str, Any], now: datetime) -> list[NewTrigger]:
    return rows_of(definition, lambda config: first_due(config, now))
