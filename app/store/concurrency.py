"""Limits on concurrent runs: who has a place in its group, and who gets the next one.

A workflow may say how many of its runs are at work at once. The runs that it counts together are a
group: those of one workflow with the same ``concurrency_key``. A run that is ``admitted`` has a
place in its group, and keeps it until it has ended and nobody holds it any more: also while it
sleeps, waits, is paused, or while a node that was cancelled is still in flight. So the runs of a
group of one never overlap. The claim takes admitted runs only.

Places are given under the lock on the workflow's row, in a statement of its own: whoever counts
then sees all that were given before. They become free without any lock, so that the count is never
too low. Nobody may lock a workflow's row while it holds the locks of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from app.db import LOCK_TIMEOUT
from app.domain.lifecycle import QUEUED
from app.store.leases import DUE_CHANNEL
from app.store.prepared import Message

CANCEL_OLDEST = "cancel_oldest"
REJECT = "reject"
MAX_GROUPS = 1_000  # in one answer
MAX_ADMITTED = 1_000  # in one statement: the lock on the workflow is not held for long
MAX_EXCESS = 100  # runs that are named to be cancelled, at once

Group = tuple[str, str]  # the workflow's id, and the key of the group in it

# The words of the indexes runs_admitted and runs_waiting.
HAS_PLACE = """r.concurrency_key IS NOT NULL AND r.admitted
      AND (r.completed_at IS NULL OR r.lease_token IS NOT NULL)"""
WAITS = f"r.status = '{QUEUED}' AND NOT r.admitted"
OF_GROUP = "r.metronome_id = :metronome_id AND r.concurrency_key = :group"

# Sent with LOCK_TIMEOUT.
LOCK = "SELECT m.id FROM metronomes m WHERE m.id = :metronome_id FOR NO KEY UPDATE"


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of giving out the free places of a group.

    ``admitted`` runs have got one. ``excess`` are to be cancelled first, the oldest first: then
    nobody was admitted. ``again`` says that there may be more to do: a run which was chosen was
    just stopped by somebody else, or there are very many. ``organization_id`` and ``user_id`` are
    the workflow's.
    """

    admitted: tuple[str, ...]
    excess: tuple[str, ...]
    again: bool
    organization_id: str
    user_id: str


# Where the policy is to cancel the oldest, only the newest of the group go on, as many as the limit
# says; what has ended and is still in flight needs its place, but is no member any more. To know
# the next of the oldest that have to go, only so many more than the limit are looked at: very many
# may wait.
#
# The runs are locked in the order of their ids, as everybody locks runs; those who are first in the
# line are chosen before, without a lock.
_SETTLE = f"""
WITH policy AS MATERIALIZED (
    SELECT m.organization_id, m.user_id, m.max_concurrent_runs AS most,
        CASE WHEN m.on_limit = '{CANCEL_OLDEST}' THEN CAST(m.max_concurrent_runs AS bigint) END
            AS newest
    FROM metronomes m WHERE m.id = :metronome_id
),
places AS MATERIALIZED (
    SELECT r.id, r.queued_at, r.completed_at IS NULL AS goes_on FROM runs r
    WHERE {OF_GROUP} AND {HAS_PLACE}
),
first_waiting AS MATERIALIZED (
    SELECT r.id, r.queued_at FROM runs r WHERE {OF_GROUP} AND {WAITS}
    ORDER BY r.queued_at, r.id LIMIT (SELECT coalesce(newest + {MAX_EXCESS}, 0) FROM policy)
),
oldest AS MATERIALIZED (
    SELECT m.id, m.queued_at FROM (
        SELECT p.id, p.queued_at FROM places p WHERE p.goes_on
        UNION ALL
        SELECT w.id, w.queued_at FROM first_waiting w
    ) m
    WHERE EXISTS (SELECT FROM first_waiting)
    ORDER BY m.queued_at, m.id LIMIT (SELECT coalesce(newest + {MAX_EXCESS}, 0) FROM policy)
),
excess AS MATERIALIZED (
    SELECT id, queued_at FROM oldest ORDER BY queued_at, id
    LIMIT (SELECT greatest((SELECT count(*) FROM oldest) - newest, 0) FROM policy)
),
chosen AS MATERIALIZED (
    SELECT r.id FROM runs r
    WHERE {OF_GROUP} AND {WAITS} AND NOT EXISTS (SELECT FROM excess)
    ORDER BY r.queued_at, r.id
    LIMIT (
        -- least() passes over NULL, and greatest() too: there is no limit any more
        SELECT least({MAX_ADMITTED}, CASE WHEN most IS NOT NULL
            THEN greatest(most - (SELECT count(*) FROM places), 0) END) FROM policy
    )
),
locked AS MATERIALIZED (
    SELECT r.id FROM runs r
    WHERE r.id = ANY (ARRAY(SELECT id FROM chosen)) AND ({WAITS}) IS TRUE
    ORDER BY r.id FOR NO KEY UPDATE
),
admitted AS (
    UPDATE runs r SET admitted = true, updated_at = clock_timestamp()
    WHERE r.id = ANY (ARRAY(SELECT id FROM locked))
    RETURNING r.id
),
told AS (
    SELECT pg_notify('{DUE_CHANNEL}', '') WHERE EXISTS (SELECT FROM admitted)
)
SELECT ARRAY(SELECT id FROM admitted ORDER BY id),
    ARRAY(SELECT id FROM excess ORDER BY queued_at, id),
    (SELECT count(*) FROM chosen) > (SELECT count(*) FROM locked)
        OR (SELECT count(*) FROM chosen) = {MAX_ADMITTED},
    organization_id, user_id, (SELECT count(*) FROM told)
FROM policy
"""
SETTLE_MESSAGE = Message(LOCK, _SETTLE, settings=LOCK_TIMEOUT)


def settle(connection: Connection, group: Group) -> Settled | None:
    """Give the free places of a group to those that have waited longest, up to the limit of now.

    None where the workflow is gone.
    """
    metronome_id, key = group
    row: Sequence[Any] | None = SETTLE_MESSAGE.row(
        connection, {"metronome_id": metronome_id, "group": key}
    )
    if row is None:
        return None
    admitted, excess, again, organization_id, user_id, _ = row
    return Settled(tuple(admitted), tuple(excess), again, organization_id, user_id)


# The groups in which runs wait though there is a place, or though older ones are to go; from one
# group to the next along the index, whatever number of runs waits in each. For a WITH RECURSIVE.
STALLED = f"""line AS (
    (
        SELECT r.metronome_id, r.concurrency_key FROM runs r WHERE {WAITS}
        ORDER BY r.metronome_id, r.concurrency_key LIMIT 1
    )
    UNION ALL
    SELECT n.metronome_id, n.concurrency_key FROM line l, LATERAL (
        SELECT r.metronome_id, r.concurrency_key FROM runs r
        WHERE {WAITS}
          AND (r.metronome_id, r.concurrency_key) > (l.metronome_id, l.concurrency_key)
        ORDER BY r.metronome_id, r.concurrency_key LIMIT 1
    ) n
),
stalled AS (
    SELECT l.metronome_id, l.concurrency_key FROM line l JOIN metronomes m ON m.id = l.metronome_id
    WHERE m.max_concurrent_runs IS NULL OR m.on_limit = '{CANCEL_OLDEST}' OR (
        SELECT count(*) FROM (
            SELECT FROM runs r
            WHERE r.metronome_id = l.metronome_id AND r.concurrency_key = l.concurrency_key
              AND {HAS_PLACE}
            LIMIT m.max_concurrent_runs
        ) p
    ) < m.max_concurrent_runs
    LIMIT {MAX_GROUPS}
)"""


_WAITING_GROUPS = text(f"""
SELECT DISTINCT r.concurrency_key FROM runs r WHERE r.metronome_id = :metronome_id AND {WAITS}
LIMIT {MAX_GROUPS}
""")


def waiting_groups(connection: Connection, metronome_id: str) -> Sequence[Group]:
    """The groups of a workflow in which runs wait for a place."""
    rows = connection.execute(_WAITING_GROUPS, {"metronome_id": metronome_id})
    return [(metronome_id, row[0]) for row in rows]


@dataclass(frozen=True, slots=True)
class Policy:
    """How many runs of a group may be at work, and what is done with one more.

    ``expression`` gives the key of a run's group; without it all runs are one group.
    """

    most: int
    on_limit: str
    expression: str | None
