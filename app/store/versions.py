"""Versions: definitions as they are run, and those that can be published.

What somebody saved has a number, counted from 0 for each workflow; see saved_versions.py. What was
only run (the draft as it stood, or a definition that came with the run) has none. It never changes.

Whoever gives out a number, or changes or publishes a version, holds the lock of the workflow's row:
taken in a statement of its own, so that the next one sees what was committed during the wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Text, cast, func, select, text

from app.db import LOCK_TIMEOUT, RawConnection
from app.domain.models import Actor, Page, Version
from app.ids import new_id
from app.store import rows
from app.store.schema import versions

ARCHIVED = "archived"
PUBLISHED = "published"
SAVED = "saved"
PAGE_BYTES = 16_000_000  # of definitions, behind which a page ends

LOCK = f"""
{LOCK_TIMEOUT};
SELECT id FROM metronomes WHERE id = :metronome_id AND organization_id = :organization_id
FOR NO KEY UPDATE;
"""

VERSION = rows.columns(rows.VERSION_FIELDS, "v")

# Where somebody else took the snapshot during the wait for the lock, theirs is the answer.
_OF_DRAFT = text(f"""
{LOCK}
WITH draft AS (
    SELECT * FROM metronomes WHERE id = :metronome_id AND organization_id = :organization_id
),
noted AS (
    UPDATE metronomes m SET draft_version_id = :version_id
    FROM draft WHERE m.id = draft.id AND draft.draft_version_id IS NULL
    RETURNING m.*
),
inserted AS (
    INSERT INTO versions (id, organization_id, metronome_id, status, definition, node_count,
        edge_count, trigger_summary)
    SELECT :version_id, organization_id, id, '{SAVED}', definition,
        coalesce(json_array_length(definition->'nodes'), 0),
        coalesce(json_array_length(definition->'edges'), 0), trigger_summary
    FROM noted
)
SELECT coalesce(draft_version_id, :version_id) FROM draft
""")


def of_draft(connection: Connection, actor: Actor, metronome_id: str) -> str | None:
    """The id of the version that holds the workflow's draft, made now where there is none.

    It has no number. None where the workflow is unknown or another organization's.
    """
    values = {
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "version_id": new_id("ver"),
    }
    version: str | None = connection.execute(_OF_DRAFT, values).scalar_one_or_none()
    return version


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A definition (JSON text) that is to become a version of its own, and its size."""

    definition: str
    node_count: int
    edge_count: int


_CREATE = text(f"""
INSERT INTO versions (id, organization_id, metronome_id, status, definition, node_count,
    edge_count, trigger_summary)
SELECT :version_id, organization_id, id, '{SAVED}', CAST(:definition AS json), :node_count,
    :edge_count, trigger_summary
FROM metronomes WHERE id = :metronome_id AND organization_id = :organization_id
RETURNING id
""")


def create(connection: Connection, actor: Actor, metronome_id: str, new: NewVersion) -> str | None:
    """Store what came with a run; its id, or None where there is no such workflow.

    It has no number.
    """
    values = {
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "version_id": new_id("ver"),
        "definition": new.definition,
        "node_count": new.node_count,
        "edge_count": new.edge_count,
    }
    version: str | None = connection.execute(_CREATE, values).scalar_one_or_none()
    return version


def _size(of: str) -> str:
    return f"coalesce(w.{of}_count, v.{of}_count)"


# What a version was at an earlier revision is its definition of then.
_AS_IT_WAS = {
    "definition": "coalesce(w.definition, v.definition)",
    "revision": "coalesce(w.revision, v.revision)",
    "node_count": _size("node"),
    "edge_count": _size("edge"),
}
_GET = text(f"""
SELECT {", ".join(_AS_IT_WAS.get(name, f"v.{name}") for name in rows.VERSION_FIELDS)}
FROM versions v
LEFT JOIN LATERAL (
    SELECT w.*, coalesce(json_array_length(w.definition->'nodes'), 0) AS node_count,
        coalesce(json_array_length(w.definition->'edges'), 0) AS edge_count
    FROM version_revisions w WHERE w.version_id = v.id AND w.revision = :revision
) w ON true
WHERE v.id = :version_id AND v.metronome_id = :metronome_id
  AND v.organization_id = :organization_id
  AND (:revision IS NULL OR v.revision = :revision OR w.revision = :revision)
""")


def get(
    connection: Connection,
    organization_id: str,
    metronome_id: str,
    version_id: str,
    *,
    revision: int | None = None,
) -> Version | None:
    """The version, whatever its status, with its definition of now or as it was at a ``revision``.

    None where it is unknown, of another workflow or of another organization, or where it had no
    such revision.
    """
    row = connection.execute(
        _GET,
        {
            "version_id": version_id,
            "metronome_id": metronome_id,
            "organization_id": organization_id,
            "revision": revision,
        },
    ).one_or_none()
    return None if row is None else rows.version(row)


_COLUMNS = [versions.c[name] for name in rows.VERSION_FIELDS]


@dataclass(frozen=True, slots=True)
class VersionFilter:
    """Which versions to list; () are those that are not archived, None any.

    ``created_before`` itself is out of the range.
    """

    statuses: tuple[str, ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None


def page(
    connection: Connection,
    organization_id: str,
    metronome_id: str,
    page: Page,
    wanted: VersionFilter = VersionFilter(),
) -> tuple[list[Version], int]:
    """A page of the saved versions of a workflow, the highest number first; and how many fit in.

    It ends behind PAGE_BYTES of definitions: then there is one more than fit, as there is where the
    page's limit ends it. Their cursor is the number.
    """
    query = (
        select(*_COLUMNS, func.octet_length(cast(versions.c.definition, Text)).label("bytes"))
        .where(versions.c.metronome_id == metronome_id)
        .where(versions.c.organization_id == organization_id)
        .where(versions.c.version.is_not(None))
        .order_by(versions.c.version.desc())
        .limit(page.limit)
        .offset(page.offset)
    )
    if page.after is not None:
        query = query.where(versions.c.version < int(page.after))
    if wanted.created_after is not None:
        query = query.where(versions.c.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(versions.c.created_at < wanted.created_before)
    if wanted.statuses:
        query = query.where(versions.c.status.in_(wanted.statuses))
    else:
        query = query.where(versions.c.status != ARCHIVED)
    part = query.subquery()

    def before(last: int) -> Any:
        """The bytes of the definitions before one; -2: without the one right before it."""
        total = func.sum(part.c.bytes).over(order_by=part.c.version.desc(), rows=(None, last))
        return func.coalesce(total, 0)

    summed = select(part, before(-1).label("before"), before(-2).label("earlier")).subquery()
    cut = select(summed).where(summed.c.earlier < PAGE_BYTES).order_by(summed.c.version.desc())
    found = connection.execute(cut).all()
    fit = sum(row.before < PAGE_BYTES for row in found)
    return [rows.version(row) for row in found], fit


# One statement, so one snapshot: a revision is in one of the two tables at any moment.
_DEFINITION = """
SELECT definition FROM versions WHERE id = %(version_id)s AND revision = %(revision)s
UNION ALL
SELECT definition FROM version_revisions
WHERE version_id = %(version_id)s AND revision = %(revision)s
"""


def definition(connection: RawConnection, version_id: str, revision: int) -> str | None:
    """What a version's definition was at a revision, as JSON text, for the executor.

    None where there is no such version, or it had no such revision.
    """
    with connection.cursor() as cursor:
        cursor.execute(_DEFINITION, {"version_id": version_id, "revision": revision})
        row = cursor.fetchone()
    return None if row is None else str(row[0])
