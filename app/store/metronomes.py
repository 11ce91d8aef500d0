"""The metronomes table: workflows and their drafts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import Connection, select, text

from app.domain.models import Actor, Metronome
from app.store import events, rows
from app.store.schema import metronomes, versions

ARCHIVED: Final = "archived"

# All but the published version's number stands in the table itself.
_OWN = tuple(name for name in rows.METRONOME_FIELDS if name != "published_version_number")


def _answer(source: str) -> str:
    """The row of ``source`` in the order of METRONOME_FIELDS."""
    columns = ", ".join(
        "v.version" if name == "published_version_number" else f"m.{name}"
        for name in rows.METRONOME_FIELDS
    )
    return f"SELECT {columns} FROM {source} m LEFT JOIN versions v ON v.id = m.published_version_id"


@dataclass(frozen=True, slots=True)
class NewMetronome:
    """What a workflow is created with; ``definition`` is JSON text."""

    id: str
    name: str
    description: str | None
    status: str
    definition: str
    trigger_summary: str | None


_CREATE = text(f"""
WITH created AS (
    INSERT INTO metronomes (id, organization_id, user_id, name, description, status, definition,
        trigger_summary)
    VALUES (:id, :organization_id, :user_id, :name, :description, :status,
        CAST(:definition AS json), :trigger_summary)
    RETURNING {", ".join(_OWN)}
),
audited AS (
    {events.insert("created", "metronome.created", metronome_id="id")}
)
{_answer("created")}
""")


def create(connection: Connection, actor: Actor, new: NewMetronome) -> Metronome:
    """Store a workflow that belongs to ``actor``."""
    values: dict[str, Any] = {name: getattr(new, name) for name in new.__slots__}
    values |= {"organization_id": actor.organization_id, "user_id": actor.user_id}
    return rows.metronome(connection.execute(_CREATE, values | events.parameters(actor)).one())


_GET = text(_answer("metronomes") + " WHERE m.id = :id AND m.organization_id = :organization_id")


def get(connection: Connection, organization_id: str, metronome_id: str) -> Metronome | None:
    """The workflow, archived or not; None where it is unknown or another organization's."""
    row = connection.execute(
        _GET, {"id": metronome_id, "organization_id": organization_id}
    ).one_or_none()
    return None if row is None else rows.metronome(row)


_COLUMNS = [
    versions.c.version if name == "published_version_number" else metronomes.c[name]
    for name in rows.METRONOME_FIELDS
]


def page(
    connection: Connection,
    organization_id: str,
    *,
    statuses: tuple[str, ...],
    include_archived: bool,
    limit: int,
    offset: int,
) -> list[Metronome]:
    """Up to ``limit`` workflows, newest first, from the ``offset``-th on.

    Without ``statuses`` those of any status; archived ones only where they are asked for.
    """
    query = (
        select(*_COLUMNS)
        .join_from(
            metronomes, versions, versions.c.id == metronomes.c.published_version_id, isouter=True
        )
        .where(metronomes.c.organization_id == organization_id)
        .order_by(metronomes.c.id.desc())
        .limit(limit)
        .offset(offset)
    )
    if statuses:
        query = query.where(metronomes.c.status.in_(statuses))
    elif not include_archived:
        query = query.where(metronomes.c.status != ARCHIVED)
    return [rows.metronome(row) for row in connection.execute(query)]


_UPDATED_EVENT = events.insert(
    "updated", "metronome.updated", metronome_id="id", payload="CAST(:payload AS json)"
)

# A new definition has no version until it is run.
_UPDATE = text(f"""
WITH updated AS (
    UPDATE metronomes m SET
        name = coalesce(:name, m.name),
        status = coalesce(:status, m.status),
        description = CASE WHEN :set_description THEN :description ELSE m.description END,
        trigger_summary =
            CASE WHEN :set_trigger_summary THEN :trigger_summary ELSE m.trigger_summary END,
        definition = coalesce(CAST(:definition AS json), m.definition),
        draft_version_id = CASE WHEN :set_definition THEN NULL ELSE m.draft_version_id END,
        updated_at = clock_timestamp()
    WHERE m.id = :id AND m.organization_id = :organization_id
    RETURNING {rows.columns(_OWN, "m")}
),
audited AS (
    {_UPDATED_EVENT}
)
{_answer("updated")}
""")


def update(
    connection: Connection, actor: Actor, metronome_id: str, changes: Mapping[str, str | None]
) -> Metronome | None:
    """Change ``name``, ``status``, ``description``, ``trigger_summary`` or ``definition`` (JSON
    text), as far as ``changes`` names them; only description and trigger_summary can be None."""
    payload: dict[str, Any] = {"changed": sorted(changes)}
    if "status" in changes:
        payload["status"] = changes["status"]
    values: dict[str, Any] = {
        "id": metronome_id,
        "organization_id": actor.organization_id,
        "payload": orjson.dumps(payload).decode(),
        "set_description": "description" in changes,
        "set_trigger_summary": "trigger_summary" in changes,
        "set_definition": "definition" in changes,
    }
    for name in ("name", "status", "description", "trigger_summary", "definition"):
        values[name] = changes.get(name)
    row = connection.execute(_UPDATE, values | events.parameters(actor)).one_or_none()
    return None if row is None else rows.metronome(row)


_ARCHIVE = text(f"""
WITH archived AS (
    UPDATE metronomes SET status = '{ARCHIVED}', updated_at = clock_timestamp()
    WHERE id = :id AND organization_id = :organization_id AND status <> '{ARCHIVED}'
    RETURNING id, organization_id, user_id
),
audited AS (
    {events.insert("archived", "metronome.archived", metronome_id="id")}
)
SELECT count(*) FROM metronomes WHERE id = :id AND organization_id = :organization_id
""")


def archive(connection: Connection, actor: Actor, metronome_id: str) -> bool:
    """Archive a workflow; False where there is none. One that is archived stays as it is."""
    values = {"id": metronome_id, "organization_id": actor.organization_id}
    return bool(connection.execute(_ARCHIVE, values | events.parameters(actor)).scalar_one())
