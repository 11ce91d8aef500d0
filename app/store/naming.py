"""Which workflows a definition names in its ``metronome`` nodes: for publishing, which looks ahead.

Only those nodes of the definitions are read, of whichever form, not the whole of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Named:
    """A workflow, and the raw ``metronome`` nodes of the definition that a nested run of it uses.

    ``published`` is False where that is the draft.
    """

    id: str
    name: str
    archived: bool
    published: bool
    nodes: list[dict[str, Any]]


# Two of a name are enough to know that it is not one workflow's.
_FIND = text("""
WITH wanted AS (
    SELECT id FROM metronomes
    WHERE organization_id = :organization_id AND id = ANY (CAST(:ids AS text[]))
    UNION
    SELECT m.id FROM unnest(CAST(:names AS text[])) AS n (name)
    CROSS JOIN LATERAL (
        SELECT id FROM metronomes
        WHERE organization_id = :organization_id AND name = n.name AND status <> 'archived'
        LIMIT 2
    ) m
)
SELECT m.id, m.name, m.status = 'archived', v.id IS NOT NULL, (
    SELECT coalesce(json_agg(node), '[]')
    FROM json_array_elements(coalesce(v.definition, m.definition)->'nodes') AS node
    WHERE coalesce(node->>'kind', node->'data'->>'kind') = 'metronome'
)
FROM wanted JOIN metronomes m USING (id)
LEFT JOIN versions v ON v.id = m.published_version_id
""")


def find(
    connection: Connection, organization_id: str, ids: Collection[str], names: Collection[str]
) -> list[Named]:
    """The workflows of an organization with one of these ids, or one of these names."""
    values = {"organization_id": organization_id, "ids": list(ids), "names": list(names)}
    return [Named(*row) for row in connection.execute(_FIND, values)]
