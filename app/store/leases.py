"""Who holds a run: claim it, renew the hold, let go.

A claim gives a run a fresh lease token, and every later write of the executor is fenced by it.
While a run is held, ``due_at`` is the end of its lease; so the claim statement that starts new runs
also wakes sleepers and takes over the runs of a dead executor.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from weakref import WeakSet

from psycopg2.errors import DuplicatePreparedStatement, InvalidSqlStatementName

from app.db import RawConnection
from app.domain.lifecycle import (
    CANCELLED,
    CLAIM,
    CLAIMABLE,
    COMPLETED,
    DOUBT,
    FAILED,
    OPEN_STEP,
    TERMINAL,
    sql_list,
)
from app.store import late, outbox
from app.store.prepared import PLANNER

DUE_CHANNEL = "metronome_due"
EXECUTOR_LOST = "executor lost: the process that ran this node is gone, its effects are unknown"
_DOUBTFUL = sql_list(DOUBT.sources)  # where a node that may have run puts a run in doubt


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run that this process now holds; ``input`` is JSON text.

    ``begun`` says that steps exist already; ``lost`` that the last holder never let go.
    """

    id: str
    organization_id: str
    metronome_id: str
    version_id: str
    user_id: str
    trigger_type: str
    input: str
    attempt_count: int
    max_attempts: int
    deadline_at: datetime | None
    token: str
    begun: bool
    lost: bool
    now: datetime
    parent_run_id: str | None = None
    root_run_id: str | None = None
    depth: int = 0
    base_seq: int = 0
    base_attempt: int = 0
    takeovers: int = 0
    confirmed_seq: int = 0
    queued_at: datetime | None = None
    version_revision: int = 0
    concurrency_key: str | None = None  # its group, where its workflow limits how many are at work
    entry_nodes: str | None = None  # JSON text: the triggers at which it begins; None: by its type


# What is told to the connector of a step that is closed.
TOLD = "s.run_id, s.seq, s.metronome_id, s.node_id, s.connector"

# ``now()`` is the same for a whole statement, so the index ends where runs are not due yet; with
# ``clock_timestamp()`` all that sleep or wait would be passed over at each claim.
#
# Oldest first, and never waiting for a row that somebody else is just taking. An attempt is counted
# when it begins; going on after a sleep, a resume or a lost executor is the same attempt.
# Take-overs are counted from the last holder under which a node ended well. A step that was in
# flight when the run was retried from the start is no part of what a rebuild reads: where its
# executor was lost, it is closed here, and its connector told.
_CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT id, started_at IS NOT NULL OR attempt_count > 0 AS begun,
        lease_token IS NOT NULL AS lost
    FROM runs
    WHERE status IN ({sql_list(CLAIM.sources)}) AND admitted AND due_at <= now()
    ORDER BY due_at
    LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE runs r SET status = '{CLAIM.target}',
        lease_token = CAST(gen_random_uuid() AS text),
        locked_by = %(executor)s,
        locked_at = clock_timestamp(),
        due_at = clock_timestamp() + %(lease)s * interval '1 second',
        started_at = coalesce(r.started_at, clock_timestamp()),
        deadline_at = coalesce(r.deadline_at,
            clock_timestamp() + r.timeout_ms * interval '1 millisecond'),
        attempt_count = r.attempt_count + CASE WHEN r.attempt_due THEN 1 ELSE 0 END,
        attempt_due = false,
        next_attempt_at = NULL,
        signalled = false,
        takeovers = CASE
            WHEN NOT due.lost THEN r.takeovers
            WHEN EXISTS (
                SELECT FROM steps s WHERE s.run_id = r.id AND s.status = '{COMPLETED}'
                  AND s.completed_at > r.locked_at
            ) THEN 1
            ELSE r.takeovers + 1 END,
        updated_at = clock_timestamp()
    FROM due WHERE r.id = due.id
    RETURNING r.*, due.begun, due.lost
),
left_behind AS (
    UPDATE steps s SET status = '{FAILED}', error = '{EXECUTOR_LOST}', lease_token = NULL,
        metadata = {late.kept()},
        completed_at = clock_timestamp(), updated_at = clock_timestamp()
    FROM (
        SELECT id, base_seq, organization_id FROM claimed WHERE lost AND base_seq > 0 OFFSET 0
    ) l
    WHERE s.run_id = ANY (ARRAY[l.id]) AND s.seq <= l.base_seq AND s.lease_token IS NOT NULL
    RETURNING {TOLD}, l.organization_id
),
told AS (
    {outbox.insert("left_behind", "node.cancelled")}
)
SELECT c.id, c.organization_id, c.metronome_id, c.version_id, c.user_id, c.trigger_type, c.input,
    c.attempt_count, c.max_attempts, c.deadline_at, c.lease_token, c.begun, c.lost,
    clock_timestamp(), c.parent_run_id, c.root_run_id, c.depth, c.base_seq, c.base_attempt,
    c.takeovers, c.confirmed_seq, c.queued_at, c.version_revision,
    c.concurrency_key, c.entry_nodes
FROM claimed c ORDER BY c.id
"""


# To plan the claim takes longer than to run it. A plan that is made while the tables are empty must
# suit them when they are full: every row is looked up by an index.
_PREPARED = f"metronome_claim_{sha256(_CLAIM.encode()).hexdigest()[:12]}"
_PREPARE = f"""
PREPARE {_PREPARED} (text, bigint, float8) AS
{_CLAIM % {"executor": "$1", "limit": "$2", "lease": "$3"}}
"""
_EXECUTE = f"EXECUTE {_PREPARED} (%(executor)s, %(limit)s, %(lease)s)"
_prepared: WeakSet[RawConnection] = WeakSet()

# A claim does not wait for the disk. Nothing is called on its word alone: before a node starts or
# a connector is told anything, a boundary or the courier commits, later in the same log, and waits
# until all up to there is on disk. Where the server crashes before that, the run is due again as
# if nobody had claimed it (attempt, take-overs, deadline and what was closed included), and the
# token of the forgotten claim fences nobody's writes but its own, which fail. Only the count of
# take-overs is for somebody who comes later: ``disown`` has it on disk before the run is walked
# again. (A first claim whose walk takes the server down before it writes is not counted.)
_UNFLUSHED = "SET LOCAL synchronous_commit = off"


def prepare(connection: RawConnection) -> None:
    """Plan the claim, once for the connection, which must be in autocommit."""
    with connection.cursor() as cursor, suppress(DuplicatePreparedStatement):
        cursor.execute(_PREPARE)
        _prepared.add(connection)


def claim(connection: RawConnection, executor: str, *, limit: int, lease: float) -> list[Claimed]:
    """Take up to ``limit`` due runs for ``lease`` seconds, the longest due first.

    On a connection that has been through ``prepare`` it is cheaper.
    """
    values = {"executor": executor, "limit": limit, "lease": lease}
    with connection.cursor() as cursor:
        if connection in _prepared:
            try:
                # settings for this message only: behind a pooler the session is everybody's
                cursor.execute(f"{_UNFLUSHED}; {PLANNER}; {_EXECUTE}", values)
            except InvalidSqlStatementName:  # a pooler has changed the server behind us
                _prepared.discard(connection)
        if connection not in _prepared:
            cursor.execute(f"{_UNFLUSHED}; {_CLAIM}", values)
        return [Claimed(*row) for row in cursor.fetchall()]


NEXT_DUE = f"""
SELECT extract(epoch FROM min(due_at) - clock_timestamp())::float8
FROM runs WHERE status IN ({sql_list(CLAIMABLE)}) AND admitted AND due_at < 'infinity'
"""


def next_due(connection: RawConnection) -> float | None:
    """Seconds until the next run is due (negative where one is overdue); None without one."""
    with connection.cursor() as cursor:
        cursor.execute(NEXT_DUE)
        row = cursor.fetchone()
    return None if row is None or row[0] is None else float(row[0])


# In id order, as every statement that locks several runs, so that no two can wait for each other.
_RENEW = """
WITH held AS MATERIALIZED (
    SELECT r.id FROM unnest(%(ids)s::text[], %(tokens)s::text[]) AS h (id, token)
    JOIN runs r ON r.id = h.id AND r.lease_token = h.token
    ORDER BY r.id FOR NO KEY UPDATE OF r
)
UPDATE runs r SET due_at = clock_timestamp() + %(lease)s * interval '1 second'
FROM held WHERE r.id = held.id
RETURNING r.id, r.status
"""


def renew(
    connection: RawConnection, held: Sequence[tuple[str, str]], *, lease: float
) -> dict[str, str]:
    """Renew the leases on ``held`` (run id, token); status by run id, without the lost ones."""
    values = {"ids": [run for run, _ in held], "tokens": [t for _, t in held], "lease": lease}
    with connection.cursor() as cursor:
        cursor.execute(_RENEW, values)
        return dict(cursor.fetchall())


_STATUSES = """
SELECT r.id, r.status FROM unnest(%(ids)s::text[], %(tokens)s::text[]) AS h (id, token)
JOIN runs r ON r.id = h.id AND r.lease_token = h.token
"""


def statuses(connection: RawConnection, held: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The statuses of ``held`` (run id, token), read without a lock; lost ones are left out."""
    with connection.cursor() as cursor:
        cursor.execute(_STATUSES, {"ids": [run for run, _ in held], "tokens": [t for _, t in held]})
        return dict(cursor.fetchall())


EXECUTOR_STOPPED = "executor stopped: it was shut down before this node ended"
IN_DOUBT = (
    "in doubt: the node {node} may have run, since its executor went away while it was in flight;"
    " resume with confirmInDoubtReplay to run it again, or retry or cancel the run"
)


def counts(run: str) -> str:
    """SQL for whether news of the step ``s``, if any, still counts in its run, a table."""
    return f"""(s.result IS NOT NULL AND {run}.status NOT IN ({sql_list(TERMINAL)})
        AND s.seq > {run}.base_seq)"""


# A run that was resumed or retried while its last node drained is due as soon as it is let go; but
# where a node is left behind that may do harm when it runs again, a person is to be asked. Nobody
# is in flight behind the last holder: a step under another claim was left by one that was lost.
# A step of which news has come is not closed: it is parked, and the next claim hears the news.
_LET_GO = f"""
SELECT id FROM runs WHERE id = %(run_id)s FOR NO KEY UPDATE;

WITH parked AS (
    INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, attempt, status, error,
        parent_seq, iteration, completed_at)
    SELECT r.id, n.seq, r.metronome_id, n.node_id, n.node_type, n.attempt, '{CANCELLED}',
        'the run was cancelled before this node started', n.parent_seq, n.iteration,
        clock_timestamp()
    FROM unnest(%(seqs)s::int[], %(nodes)s::text[], %(types)s::text[], %(attempts)s::int[],
            %(parents)s::int[], %(iterations)s::int[])
        AS n (seq, node_id, node_type, attempt, parent_seq, iteration)
    JOIN runs r ON r.id = %(run_id)s AND r.lease_token = %(token)s AND r.status = '{CANCELLED}'
        AND r.base_seq = coalesce(%(base_seq)s, r.base_seq)
),
heard AS (
    UPDATE steps s SET lease_token = NULL
    FROM runs r
    WHERE r.id = %(run_id)s AND r.lease_token = %(token)s AND s.run_id = r.id
      AND s.lease_token IS NOT NULL AND {counts("r")}
),
closed AS (
    UPDATE steps s SET status = CASE WHEN r.status = '{CANCELLED}' THEN '{CANCELLED}'
            ELSE '{FAILED}' END,
        error = %(error)s, lease_token = NULL, wake_at = NULL, metadata = {late.kept()},
        completed_at = clock_timestamp(), updated_at = clock_timestamp()
    FROM runs r
    WHERE r.id = %(run_id)s AND r.lease_token = %(token)s AND s.run_id = r.id
      AND s.status IN ({sql_list(OPEN_STEP)})
      AND (s.lease_token IS NOT NULL OR r.status = '{CANCELLED}') AND NOT {counts("r")}
    RETURNING {TOLD}, s.unsafe, r.organization_id
),
told AS (
    {outbox.insert("closed", "node.cancelled")}
),
doubtful AS (
    SELECT min(node_id) AS node_id FROM closed, runs r
    WHERE unsafe AND %(unfinished)s AND r.id = %(run_id)s AND seq > r.base_seq
)
UPDATE runs r SET lease_token = NULL, locked_by = NULL, locked_at = NULL,
    status = CASE WHEN d.node_id IS NULL OR r.status NOT IN ({_DOUBTFUL})
        THEN r.status ELSE '{DOUBT.target}' END,
    in_doubt = r.in_doubt OR d.node_id IS NOT NULL AND r.status IN ({_DOUBTFUL}),
    paused_by = CASE WHEN d.node_id IS NULL OR r.status NOT IN ({_DOUBTFUL})
        THEN r.paused_by ELSE coalesce(r.paused_by, r.id) END,
    error = CASE WHEN d.node_id IS NULL OR r.status NOT IN ({_DOUBTFUL})
        THEN r.error ELSE replace('{IN_DOUBT}', '{{node}}', d.node_id) END,
    updated_at = CASE WHEN d.node_id IS NULL OR r.status NOT IN ({_DOUBTFUL})
        THEN r.updated_at ELSE clock_timestamp() END,
    due_at = CASE WHEN d.node_id IS NULL AND r.status IN ({sql_list(CLAIMABLE)})
        THEN clock_timestamp() END
FROM doubtful d
WHERE r.id = %(run_id)s AND r.lease_token = %(token)s
RETURNING r.status
"""


@dataclass(frozen=True, slots=True)
class NextNode:
    """A node that would have started next."""

    seq: int
    node_id: str
    node_type: str
    attempt: int
    parent_seq: int | None = None
    iteration: int | None = None


def let_go(
    connection: RawConnection,
    run_id: str,
    token: str,
    *,
    nexts: Sequence[NextNode] = (),
    base_seq: int | None = None,
    error: str | None = None,
    unfinished: bool = False,
) -> str | None:
    """Give a run back without a move of its own; its status, or None where the lease was lost.

    Where the run was cancelled, ``nexts`` enter the trace as cancelled steps that never started;
    not where it has begun anew since: its ``base_seq`` is another one then. A step that is still
    open under this lease is closed with ``error``, and its connector told; ``unfinished`` says that
    its node may have run all the same, which puts the run in doubt where running it again may do
    harm. A step whose news has come is parked instead. Where the run was resumed or retried
    meanwhile, or the executor shuts down, it becomes due at once.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _LET_GO,
            {
                "run_id": run_id,
                "token": token,
                "error": error,
                "seqs": [node.seq for node in nexts],
                "nodes": [node.node_id for node in nexts],
                "types": [node.node_type for node in nexts],
                "attempts": [node.attempt for node in nexts],
                "parents": [node.parent_seq for node in nexts],
                "iterations": [node.iteration for node in nexts],
                "base_seq": base_seq,
                "unfinished": unfinished,
            },
        )
        row = cursor.fetchone()
    return None if row is None else str(row[0])


_CLOSE_ALL = f"""
SELECT id FROM runs WHERE id = %(run_id)s FOR NO KEY UPDATE;

WITH closed AS (
    UPDATE steps s SET status = '{FAILED}', error = %(error)s, lease_token = NULL, wake_at = NULL,
        metadata = {late.kept()},
        completed_at = clock_timestamp(), updated_at = clock_timestamp()
    FROM runs r
    WHERE r.id = %(run_id)s AND r.lease_token = %(token)s AND s.run_id = r.id
      AND s.status IN ({sql_list(OPEN_STEP)})
    RETURNING {TOLD}, r.organization_id
)
{outbox.insert("closed", "node.cancelled")}
"""


def close_all(connection: RawConnection, run_id: str, token: str, error: str) -> None:
    """Close, as failed, every open step of a run that can't go on, and tell their connectors."""
    with connection.cursor() as cursor:
        cursor.execute(_CLOSE_ALL, {"run_id": run_id, "token": token, "error": error})


_DISOWN = f"""
SELECT id FROM runs WHERE id = %(run_id)s FOR NO KEY UPDATE;

UPDATE steps s SET lease_token = r.lease_token
FROM runs r
WHERE r.id = %(run_id)s AND r.lease_token = %(token)s AND s.run_id = r.id
  AND s.lease_token <> r.lease_token AND s.status IN ({sql_list(OPEN_STEP)})
"""


def disown(connection: RawConnection, run_id: str, token: str) -> None:
    """Take the open steps from the executor that was lost, before the new holder reads them.

    An executor that was only frozen could else still end a step well that is just being replayed.
    Its commit also takes the claim to disk, and with it the count of take-overs.
    """
    with connection.cursor() as cursor:
        cursor.execute(_DISOWN, {"run_id": run_id, "token": token})
