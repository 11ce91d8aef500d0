"""What connectors have yet to be told of the nodes that were dispatched to them.

A message is written by the statement that makes it true (a cancel, a pause, a resume), so it is
there exactly where that was committed. A row is claimed for a while, like a run, and deleted once
it was delivered; a crash in between means that it is delivered again. Of several messages about one
step only the newest counts: what was not delivered by then never will be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.db import RawConnection

OUTBOX_CHANNEL = "metronome_outbox"
KEPT_DAYS = 8  # of a message that was given up, which happens a day behind its creation at most


def insert(source: str, event: str, *, where: str = "true") -> str:
    """SQL for a WITH query that tells the connectors of the steps of ``source``, another one.

    ``source`` has run_id, seq, metronome_id, organization_id, node_id and connector; steps that
    were dispatched to none are left out, and those that don't meet ``where``, an SQL condition over
    the row. ``event`` is a literal such as ``node.cancelled``. Executors are notified.
    """
    # In the RETURNING list, the notification needs no query of its own that somebody has to read.
    return f"""INSERT INTO outbox (id, organization_id, metronome_id, run_id, seq, node_id,
        connector, event, due_at)
    SELECT 'out_' || replace(CAST(gen_random_uuid() AS text), '-', ''), organization_id,
        metronome_id, run_id, seq, node_id, connector, '{event}', clock_timestamp()
    FROM {source} WHERE connector IS NOT NULL AND ({where})
    RETURNING pg_notify('{OUTBOX_CHANNEL}', '')"""


@dataclass(frozen=True, slots=True)
class Notice:
    """A message to deliver, which this process has claimed; ``attempts`` counts this one.

    ``node_kind`` and the texts that follow it are of now; None where the run is gone.
    """

    id: str
    organization_id: str
    metronome_id: str
    run_id: str
    seq: int
    node_id: str
    connector: str
    event: str
    attempts: int
    created_at: datetime
    now: datetime
    node_kind: str | None
    step_error: str | None
    run_status: str | None
    run_error: str | None


# The claim pushes due_at forward, so that nobody else takes the row while it is being delivered;
# ``attempts`` goes up, and fences what is written about the delivery. Rows that were given up are
# kept for people to look at, and end here: an index holds them, and now() lets it be used.
CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT id FROM outbox o
    WHERE due_at <= now() AND NOT connector = ANY (%(busy)s)
    ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
outdated AS MATERIALIZED (
    SELECT o.id FROM due JOIN outbox o ON o.id = due.id
    WHERE EXISTS (
        SELECT FROM outbox n
        WHERE n.run_id = o.run_id AND n.seq = o.seq
          AND (n.created_at, n.id) > (o.created_at, o.id)
    )
),
forgotten AS (
    DELETE FROM outbox WHERE id IN (
        SELECT id FROM outbox
        WHERE due_at IS NULL AND created_at < now() - interval '{KEPT_DAYS} days'
        ORDER BY created_at LIMIT 100 FOR UPDATE SKIP LOCKED
    )
),
dropped AS (
    DELETE FROM outbox WHERE id IN (SELECT id FROM outdated)
),
claimed AS (
    UPDATE outbox o SET attempts = o.attempts + 1,
        due_at = clock_timestamp() + %(lease)s * interval '1 second'
    FROM due WHERE o.id = due.id AND o.id NOT IN (SELECT id FROM outdated)
    RETURNING o.*
)
SELECT c.id, c.organization_id, c.metronome_id, c.run_id, c.seq, c.node_id, c.connector, c.event,
    c.attempts, c.created_at, clock_timestamp(), s.node_type, s.error, r.status, r.error
FROM claimed c
LEFT JOIN steps s ON s.run_id = c.run_id AND s.seq = c.seq
LEFT JOIN runs r ON r.id = c.run_id
ORDER BY c.created_at, c.id
"""


def claim(
    connection: RawConnection, *, limit: int, lease: float, busy: Sequence[str] = ()
) -> list[Notice]:
    """Take up to ``limit`` due messages for ``lease`` seconds; none for the connectors ``busy``.

    Messages that a newer one about the same step has overtaken are dropped, and so are those that
    were given up long ago. So an empty answer does
    not mean that nothing is due: ``next_due`` tells.
    """
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, {"limit": limit, "lease": lease, "busy": list(busy)})
        return [Notice(*row) for row in cursor.fetchall()]


_DELIVERED = "DELETE FROM outbox WHERE id = %(id)s AND attempts = %(attempts)s"


def delivered(connection: RawConnection, notice: Notice) -> None:
    """The message has arrived."""
    with connection.cursor() as cursor:
        cursor.execute(_DELIVERED, {"id": notice.id, "attempts": notice.attempts})


_FAILED = """
UPDATE outbox SET error = %(error)s, due_at = CASE
    WHEN attempts < %(most)s AND created_at > clock_timestamp() - %(age)s * interval '1 second'
    THEN clock_timestamp() + %(wait)s * interval '1 second' END
WHERE id = %(id)s AND attempts = %(attempts)s
RETURNING due_at IS NULL
"""


def failed(
    connection: RawConnection, notice: Notice, *, error: str, wait: float, most: int, age: float
) -> bool:
    """The message did not arrive: try again in ``wait`` seconds, or give it up: True then.

    It is given up after ``most`` attempts, or when it is older than ``age`` seconds; the row stays,
    with its error and without a time, until its run is deleted or KEPT_DAYS after its creation.
    """
    values = {"id": notice.id, "attempts": notice.attempts, "error": error, "wait": wait}
    with connection.cursor() as cursor:
        cursor.execute(_FAILED, {**values, "most": most, "age": age})
        row = cursor.fetchone()
    return row is not None and bool(row[0])


_NEXT_DUE = """
SELECT extract(epoch FROM min(due_at) - clock_timestamp())::float8 FROM outbox
WHERE due_at IS NOT NULL AND NOT connector = ANY (%(busy)s)
"""


def next_due(connection: RawConnection, *, busy: Sequence[str] = ()) -> float | None:
    """Seconds until a message is due, but for the connectors ``busy``; None without one."""
    with connection.cursor() as cursor:
        cursor.execute(_NEXT_DUE, {"busy": list(busy)})
        row = cursor.fetchone()
    return None if row is None or row[0] is None else float(row[0])
