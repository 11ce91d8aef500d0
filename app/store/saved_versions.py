"""Versions that somebody saved: they have numbers, and can be changed while they aren't published.

A run keeps the definition with which it was created: what a change replaces is kept as a revision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from app.domain.models import Actor, Version
from app.store import events, rows
from app.store.versions import ARCHIVED, LOCK, SAVED, VERSION

# How many of a workflow's newest versions are looked at for one that equals a definition.
COMPARED = 100

_NEXT = "(SELECT coalesce(max(version) + 1, 0) FROM versions WHERE metronome_id = :metronome_id)"
_SIZES = ", ".join(
    f"coalesce(json_array_length(definition->'{part}'), 0)" for part in ("nodes", "edges")
)

_SAVED_EVENT = events.insert(
    "saved",
    "version.saved",
    metronome_id="metronome_id",
    version_id="id",
    payload="""json_build_object('version', version, 'description', description,
        'nodeCount', node_count, 'edgeCount', edge_count)""",
)

# The same id comes twice where a request is sent again.
_SAVE = text(f"""
{LOCK}
WITH source AS (
    SELECT id, organization_id, user_id, trigger_summary,
        coalesce(CAST(:definition AS json), definition) AS definition
    FROM metronomes WHERE id = :metronome_id AND organization_id = :organization_id
),
inserted AS (
    INSERT INTO versions AS v (id, organization_id, metronome_id, version, description, status,
        definition, node_count, edge_count, trigger_summary)
    SELECT :version_id, organization_id, id, {_NEXT}, :description, '{SAVED}', definition, {_SIZES},
        trigger_summary
    FROM source WHERE NOT EXISTS (SELECT FROM versions WHERE id = :version_id)
    RETURNING {VERSION}
),
saved AS (
    SELECT i.*, s.user_id FROM inserted i, source s
),
audited AS (
    {_SAVED_EVENT}
)
SELECT {VERSION}, true FROM inserted v
UNION ALL
SELECT {VERSION}, false FROM versions v
WHERE v.id = :version_id AND v.metronome_id = :metronome_id
  AND v.organization_id = :organization_id
""")


def save(
    connection: Connection,
    actor: Actor,
    metronome_id: str,
    *,
    version_id: str,
    definition: str | None,
    description: str | None,
) -> tuple[Version, bool] | None:
    """Save a version with the next number; without a ``definition`` (JSON text), that of the draft.

    Where there is a version of that id, it is that one, and False. None where there is no such
    workflow.
    """
    values = {
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "version_id": version_id,
        "definition": definition,
        "description": description,
    }
    row = connection.execute(_SAVE, values | events.parameters(actor)).one_or_none()
    return None if row is None else (rows.version(row), row[-1])


@dataclass(frozen=True, slots=True)
class Changed:
    """What asking for a change came to: the version as it is now.

    ``refused`` is one that can't be changed, because of its status or since it was only run.
    """

    version: Version
    outcome: Literal["changed", "unchanged", "refused"]


_CHANGED_EVENT = events.insert(
    "told",
    "version.updated",
    metronome_id="metronome_id",
    version_id="id",
    payload="""json_build_object('version', version,
        'before', json_build_object('revision', old_revision, 'description', old_description,
            'nodeCount', old_node_count, 'edgeCount', old_edge_count),
        'after', json_build_object('revision', revision, 'description', description,
            'nodeCount', node_count, 'edgeCount', edge_count))""",
)

_CHANGE = text(f"""
{LOCK}
WITH asked AS (
    SELECT v.*, m.user_id, v.status = '{SAVED}' AND v.version IS NOT NULL AS may,
        :set_definition AND CAST(v.definition AS text) IS DISTINCT FROM :definition AS redefine,
        :set_description AND v.description IS DISTINCT FROM :description AS describe
    FROM versions v JOIN metronomes m ON m.id = v.metronome_id
    WHERE v.id = :version_id AND v.metronome_id = :metronome_id
      AND v.organization_id = :organization_id
),
kept AS (
    INSERT INTO version_revisions (version_id, revision, definition)
    SELECT id, revision, definition FROM asked WHERE may AND redefine
),
defined AS (
    SELECT CAST(:definition AS json) AS definition
),
changed AS (
    UPDATE versions v SET
        definition = CASE WHEN a.redefine THEN n.definition ELSE v.definition END,
        revision = v.revision + CASE WHEN a.redefine THEN 1 ELSE 0 END,
        node_count = CASE WHEN a.redefine
            THEN coalesce(json_array_length(n.definition->'nodes'), 0) ELSE v.node_count END,
        edge_count = CASE WHEN a.redefine
            THEN coalesce(json_array_length(n.definition->'edges'), 0) ELSE v.edge_count END,
        description = CASE WHEN a.describe THEN :description ELSE v.description END,
        updated_at = clock_timestamp()
    FROM asked a, defined n
    WHERE v.id = a.id AND a.may AND (a.redefine OR a.describe)
    RETURNING {VERSION}
),
told AS (
    SELECT c.*, a.user_id, a.revision AS old_revision, a.description AS old_description,
        a.node_count AS old_node_count, a.edge_count AS old_edge_count
    FROM changed c, asked a
),
audited AS (
    {_CHANGED_EVENT}
)
SELECT {VERSION}, 'changed' FROM changed v
UNION ALL
SELECT {VERSION}, CASE WHEN v.redefine OR v.describe THEN 'refused' ELSE 'unchanged' END
FROM asked v WHERE NOT EXISTS (SELECT FROM changed)
""")


def change(
    connection: Connection,
    actor: Actor,
    metronome_id: str,
    version_id: str,
    changes: Mapping[str, str | None],
) -> Changed | None:
    """Change ``definition`` (JSON text) and ``description``, as far as ``changes`` names them.

    None where there is no such version.
    """
    values: dict[str, Any] = {
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "version_id": version_id,
        "set_definition": "definition" in changes,
        "definition": changes.get("definition"),
        "set_description": "description" in changes,
        "description": changes.get("description"),
    }
    row = connection.execute(_CHANGE, values | events.parameters(actor)).one_or_none()
    return None if row is None else Changed(rows.version(row), row[-1])


_ARCHIVED_EVENT = events.insert(
    "archived",
    "version.archived",
    metronome_id="metronome_id",
    version_id="id",
    payload="json_build_object('version', version, 'description', description)",
)

_ARCHIVE = text(f"""
{LOCK}
WITH asked AS (
    SELECT v.*, m.user_id FROM versions v JOIN metronomes m ON m.id = v.metronome_id
    WHERE v.id = :version_id AND v.metronome_id = :metronome_id
      AND v.organization_id = :organization_id
),
archived AS (
    UPDATE versions v SET status = '{ARCHIVED}', updated_at = clock_timestamp()
    FROM asked a WHERE v.id = a.id AND a.status = '{SAVED}' AND a.version IS NOT NULL
    RETURNING {VERSION}, a.user_id
),
audited AS (
    {_ARCHIVED_EVENT}
)
SELECT {VERSION}, 'changed' FROM archived v
UNION ALL
SELECT {VERSION}, CASE WHEN v.status = '{ARCHIVED}' THEN 'unchanged' ELSE 'refused' END
FROM asked v WHERE NOT EXISTS (SELECT FROM archived)
""")


def archive(
    connection: Connection, actor: Actor, metronome_id: str, version_id: str
) -> Changed | None:
    """Archive a version, which ends its use; its number stays taken. None where there is none."""
    values = {
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "version_id": version_id,
    }
    row = connection.execute(_ARCHIVE, values | events.parameters(actor)).one_or_none()
    return None if row is None else Changed(rows.version(row), row[-1])


_EQUAL = text(f"""
SELECT id FROM (
    SELECT v.id, v.version, v.definition FROM versions v
    WHERE v.metronome_id = :metronome_id AND v.version IS NOT NULL AND v.status <> '{ARCHIVED}'
    ORDER BY v.version DESC LIMIT {COMPARED} OFFSET 0
) newest
WHERE CAST(definition AS text) = coalesce(:definition, (
    SELECT CAST(definition AS text) FROM metronomes WHERE id = :metronome_id
))
ORDER BY version DESC LIMIT 1
""")


def equal(connection: Connection, metronome_id: str, definition: str | None) -> str | None:
    """The newest saved version with this definition (JSON text; None: the draft's), if any.

    Only the last hundred are looked at.
    """
    found: str | None = connection.execute(
        _EQUAL, {"metronome_id": metronome_id, "definition": definition}
    ).scalar_one_or_none()
    return found
