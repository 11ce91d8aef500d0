"""The triggers table: what published workflows listen for.

The rows follow the row of their workflow: which version it has published, who owns it, whether it
is active. So they are written by the transaction that changes the workflow, behind the lock on
that row (``LOCK``), and never by anybody else but the scheduler, which moves ``next_due_at`` on.

- Publishing and unpublishing send ``SYNC`` behind their own statement, in the same transaction.
  Where there is nothing to change, ``sync`` mends what may be missing: after a way down and up of
  the migrations, all of it is.
- A new status or owner puts ``follows(...)`` into its own statement.

Both take ``parameters(...)``: what the version listens for, computed before. Where another version
was published meanwhile, that is not used: who published it has written the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, text

from app.db import LOCK_TIMEOUT
from app.domain.trigger_rows import FUNCTION, NewTrigger
from app.ids import new_id
from app.store.leases import DUE_CHANNEL

ACTIVE = "active"

LOCK = f"""
{LOCK_TIMEOUT};
SELECT FROM metronomes WHERE id = :metronome_id AND organization_id = :organization_id
FOR NO KEY UPDATE
"""

_ROWS = "json_to_recordset(CAST(:trigger_rows AS json))"
# Executors that sleep until the next schedule have to look again.
_NOTIFY = f"CASE WHEN t.next_due_at IS NOT NULL THEN pg_notify('{DUE_CHANNEL}', 'schedule') END"

# Two statements, since a slug may go from one node to another: it has to be free by then.
_FORGET = f"""
DELETE FROM triggers t USING metronomes m
WHERE m.id = :metronome_id AND m.organization_id = :organization_id AND t.metronome_id = m.id
  AND (m.published_version_id IS NULL
    OR m.published_version_id = CAST(:trigger_version_id AS text) AND NOT EXISTS (
        SELECT FROM {_ROWS} AS w (node_id text, trigger_type text, slug text)
        WHERE w.node_id = t.node_id AND w.trigger_type = t.trigger_type
          AND w.slug IS NOT DISTINCT FROM t.slug))
"""

# A schedule that is published again as it was keeps the time at which it is due.
_LISTEN = f"""
INSERT INTO triggers AS t (id, organization_id, metronome_id, version_id, user_id, node_id,
    trigger_type, slug, config, paused, next_due_at)
SELECT w.id, m.organization_id, m.id, m.published_version_id, m.user_id, w.node_id,
    w.trigger_type, w.slug, w.config, m.status <> '{ACTIVE}',
    CASE WHEN m.status = '{ACTIVE}' THEN w.next_due_at END
FROM metronomes m, {_ROWS} AS w (id text, node_id text, trigger_type text, slug text,
    config json, next_due_at timestamptz)
WHERE m.id = :metronome_id AND m.organization_id = :organization_id
  AND m.published_version_id = CAST(:trigger_version_id AS text)
ON CONFLICT (metronome_id, node_id) DO UPDATE SET
    version_id = EXCLUDED.version_id, user_id = EXCLUDED.user_id, config = EXCLUDED.config,
    paused = EXCLUDED.paused,
    next_due_at = CASE
        WHEN NOT EXCLUDED.paused AND NOT t.paused
            AND CAST(t.config AS text) = CAST(EXCLUDED.config AS text) THEN t.next_due_at
        ELSE EXCLUDED.next_due_at END
RETURNING {_NOTIFY}
"""

# To be sent in this order behind the statement that publishes or unpublishes, with the parameters
# :metronome_id, :organization_id and those of ``parameters``. The last one answers rows.
SYNC = (_FORGET, _LISTEN)


def follows(changed: str) -> str:
    """SQL that has the triggers follow a workflow's new status or owner.

    ``changed`` names a WITH query with the columns id, user_id and status of that workflow. The
    text stands in a WITH query of its own, in a statement that is sent behind ``LOCK`` with
    ``parameters(...)`` of what is published. Schedules of a workflow that becomes active are due at
    the times that these tell; of one that is not active any more they are not due.
    """
    return f"""UPDATE triggers t SET user_id = c.user_id, paused = c.status <> '{ACTIVE}',
        next_due_at = CASE
            WHEN c.status <> '{ACTIVE}' THEN NULL
            WHEN NOT t.paused THEN t.next_due_at
            WHEN t.version_id = CAST(:trigger_version_id AS text) THEN (
                SELECT w.next_due_at FROM {_ROWS} AS w (node_id text, next_due_at timestamptz)
                WHERE w.node_id = t.node_id)
        END
    FROM {changed} c
    WHERE t.metronome_id = c.id
      AND (t.paused <> (c.status <> '{ACTIVE}') OR t.user_id <> c.user_id)
    RETURNING {_NOTIFY}"""


def parameters(version_id: str | None, found: Sequence[NewTrigger]) -> dict[str, str | None]:
    """What a version listens for, for ``SYNC`` and ``follows``; None: nothing is published."""
    given = [
        {
            "id": new_id("trg"),
            "node_id": one.node_id,
            "trigger_type": one.trigger_type,
            "slug": one.slug,
            "config": one.config,
            "next_due_at": one.next_due_at,
        }
        for one in found
    ]
    document = orjson.dumps(given, option=orjson.OPT_NAIVE_UTC).decode()
    return {"trigger_version_id": version_id, "trigger_rows": document}


_SYNC = text("; ".join((LOCK, *SYNC)))


def sync(
    connection: Connection,
    organization_id: str,
    metronome_id: str,
    given: Mapping[str, str | None],
) -> None:
    """Have the triggers be those of what is published now, even where some were lost.

    ``given`` are the ``parameters`` of that version; of None where nothing is published.
    """
    values = {"organization_id": organization_id, "metronome_id": metronome_id}
    connection.execute(_SYNC, values | dict(given))


@dataclass(frozen=True, slots=True)
class Published:
    """What a workflow has published, and the database's time at which that was read."""

    version_id: str
    definition: Mapping[str, Any]
    now: datetime


_PUBLISHED = text("""
SELECT v.id, v.definition, clock_timestamp()
FROM metronomes m JOIN versions v ON v.id = m.published_version_id
WHERE m.id = :metronome_id AND m.organization_id = :organization_id
""")


def published(connection: Connection, organization_id: str, metronome_id: str) -> Published | None:
    """What the workflow has published; None where that is nothing, or it is unknown."""
    values = {"metronome_id": metronome_id, "organization_id": organization_id}
    row = connection.execute(_PUBLISHED, values).one_or_none()
    return None if row is None else Published(*row)


def now(connection: Connection) -> datetime:
    """The database's time."""
    found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found


@dataclass(frozen=True, slots=True)
class Listener:
    """A trigger of a published workflow, and that workflow's status."""

    metronome_id: str
    version_id: str
    user_id: str  # the workflow's owner
    node_id: str
    config: Mapping[str, Any]
    paused: bool
    created_at: datetime  # since when it listens
    metronome_status: str


_COLUMNS = (
    "t.metronome_id, t.version_id, t.user_id, t.node_id, t.config, t.paused, t.created_at, m.status"
)

_LISTENERS = text(f"""
SELECT {_COLUMNS}
FROM triggers t JOIN metronomes m ON m.id = t.metronome_id
WHERE t.organization_id = :organization_id AND t.trigger_type = :trigger_type
  AND (CAST(:metronome_id AS text) IS NULL OR t.metronome_id = :metronome_id)
ORDER BY t.id
""")


def listeners(
    connection: Connection,
    organization_id: str,
    trigger_type: str,
    metronome_id: str | None = None,
) -> list[Listener]:
    """What listens for events of a type in an organization, or in one workflow; paused ones too."""
    values = {
        "organization_id": organization_id,
        "trigger_type": trigger_type,
        "metronome_id": metronome_id,
    }
    return [Listener(*row) for row in connection.execute(_LISTENERS, values)]


@dataclass(frozen=True, slots=True)
class Called:
    """A workflow that is called by a slug; ``listener`` is None where none of its triggers is."""

    metronome_status: str
    is_published: bool
    listener: Listener | None


_BY_SLUG = text(f"""
SELECT m.status, m.published_version_id IS NOT NULL, {_COLUMNS}
FROM metronomes m
LEFT JOIN triggers t ON t.metronome_id = m.id AND t.slug = :slug AND t.trigger_type = '{FUNCTION}'
WHERE m.id = :metronome_id AND m.organization_id = :organization_id
""")


def called(
    connection: Connection, organization_id: str, metronome_id: str, slug: str
) -> Called | None:
    """The function trigger of that slug; None where there is no such workflow."""
    values = {"metronome_id": metronome_id, "organization_id": organization_id, "slug": slug}
    row = connection.execute(_BY_SLUG, values).one_or_none()
    if row is None:
        return None
    return Called(row[0], row[1], None if row[2] is None else Listener(*row[2:]))
