"""Versions: what a definition was when a run used it. They never change once they are written.

Numbers count from 0 for each workflow. The workflow's row is locked while one is given out: in a
statement of its own, so that the one that counts sees what was committed during the wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from app.db import RawConnection
from app.domain.models import Actor
from app.ids import new_id
from app.store import events

_LOCK = """
SELECT id FROM metronomes WHERE id = :metronome_id AND organization_id = :organization_id
FOR NO KEY UPDATE;
"""

_COLUMNS = """id, organization_id, metronome_id, version, status, definition, node_count,
        edge_count, trigger_summary"""

_NEXT = "(SELECT coalesce(max(version) + 1, 0) FROM versions WHERE metronome_id = :metronome_id)"

_SAVED_EVENT = events.insert(
    "saved",
    "version.saved",
    metronome_id="metronome_id",
    version_id="id",
    payload="json_build_object('version', version)",
)

# Where somebody else took the snapshot during the wait for the lock, theirs is the answer.
_OF_DRAFT = text(f"""
{_LOCK}
WITH draft AS (
    SELECT * FROM metronomes WHERE id = :metronome_id AND organization_id = :organization_id
),
noted AS (
    UPDATE metronomes m SET draft_version_id = :version_id
    FROM draft WHERE m.id = draft.id AND draft.draft_version_id IS NULL
    RETURNING m.*
),
inserted AS (
    INSERT INTO versions ({_COLUMNS})
    SELECT :version_id, organization_id, id, {_NEXT}, 'saved', definition,
        coalesce(json_array_length(definition->'nodes'), 0),
        coalesce(json_array_length(definition->'edges'), 0), trigger_summary
    FROM noted
    RETURNING id, organization_id, metronome_id, version
),
saved AS (
    SELECT inserted.*, noted.user_id FROM inserted, noted
),
audited AS (
    {_SAVED_EVENT}
)
SELECT coalesce(draft_version_id, :version_id) FROM draft
""")


def of_draft(connection: Connection, actor: Actor, metronome_id: str) -> str | None:
    """The id of the version that holds the workflow's draft, made now where there is none.

    None where the workflow is unknown or another organization's.
    """
    values = {
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "version_id": new_id("ver"),
    }
    version: str | None = connection.execute(
        _OF_DRAFT, values | events.parameters(actor)
    ).scalar_one_or_none()
    return version


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A definition (JSON text) that is to become a version of its own, and its size."""

    definition: str
    node_count: int
    edge_count: int


_CREATE = text(f"""
{_LOCK}
WITH owner AS (
    SELECT user_id, trigger_summary FROM metronomes
    WHERE id = :metronome_id AND organization_id = :organization_id
),
inserted AS (
    INSERT INTO versions ({_COLUMNS})
    SELECT :version_id, :organization_id, :metronome_id, {_NEXT}, 'saved',
        CAST(:definition AS json), :node_count, :edge_count, trigger_summary
    FROM owner
    RETURNING id, organization_id, metronome_id, version
),
saved AS (
    SELECT inserted.*, owner.user_id FROM inserted, owner
),
audited AS (
    {_SAVED_EVENT}
)
SELECT id FROM saved
""")


def create(connection: Connection, actor: Actor, metronome_id: str, new: NewVersion) -> str | None:
    """Store a version that is not the draft's; its id, or None where there is no such workflow."""
    values = {
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "version_id": new_id("ver"),
        "definition": new.definition,
        "node_count": new.node_count,
        "edge_count": new.edge_count,
    }
    version: str | None = connection.execute(
        _CREATE, values | events.parameters(actor)
    ).scalar_one_or_none()
    return version


_DEFINITION = "SELECT definition FROM versions WHERE id = %s"


def definition(connection: RawConnection, version_id: str) -> str | None:
    """The definition of a version as JSON text, for the executor; None where it is unknown."""
    with connection.cursor() as cursor:
        cursor.execute(_DEFINITION, (version_id,))
        row = cursor.fetchone()
    return None if row is None else str(row[0])
