"""The node boundary: the one statement that the executor sends between two nodes.

For a list of runs it locks the run rows in id order, writes how the finished steps ended, starts
the next step where the run is still running and the lease is ours, or makes the run's next move,
and answers for each run whether to go on.

Cancel and pause lock the same row, so that they and a boundary come one after the other: that is
why no node starts after a cancel was answered. What a node in flight did is recorded whatever
has become of its run meanwhile, fenced by the lease under which the node was started.

Everything is passed as parallel arrays, one element a row, so that one prepared statement carries
one run or a hundred. Ends, sleeps and starts name their boundary by its place in the list, not by
its run: a process that has taken over a run of its own may write for the old claim and for the new
one at the same time, and neither may pass under the other's lease.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from weakref import WeakSet

import psycopg2.errors

from app.db import RawConnection
from app.domain.lifecycle import BACKOFF, MOVES, OPEN_STEP, RUNNING, SLEEP, TERMINAL, sql_list


@dataclass(frozen=True, slots=True)
class StepEnd:
    """How a step ended; ``output`` and ``metadata`` are JSON text.

    Fenced by the boundary's lease, or for a step without a lease (asleep) by that on the run.
    """

    seq: int
    status: str
    output: str | None = None
    error: str | None = None
    metadata: str | None = None


@dataclass(frozen=True, slots=True)
class StepSleep:
    """A step that nobody is in flight in until ``wake_at``."""

    seq: int
    wake_at: datetime
    output: str | None = None


@dataclass(frozen=True, slots=True)
class StepStart:
    """A step that begins (``running``), or one that is passed over (``skipped``)."""

    seq: int
    node_id: str
    node_type: str
    attempt: int
    status: str = RUNNING
    input: str | None = None
    metadata: str | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """What becomes of the run: the name of one of lifecycle.MOVES. It ends the claim.

    ``wait`` is seconds for ``backoff``; ``wake_at`` is for ``sleep``; ``output`` is JSON text.
    """

    action: str
    output: str | None = None
    error: str | None = None
    wait: float | None = None
    wake_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Boundary:
    """All that one run writes between two nodes."""

    run_id: str
    metronome_id: str
    token: str  # the lease under which the run is held
    ends: Sequence[StepEnd] = ()
    sleeps: Sequence[StepSleep] = ()
    starts: Sequence[StepStart] = ()
    move: Move | None = None


Answer = Literal["go", "stopped", "timed_out", "lease_lost"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run is to do next; only after ``go`` has its step started, or its move been made."""

    answer: Answer
    status: str | None  # of the run, as it was under the lock; None where it is gone
    started_at: datetime | None  # of the step that began
    now: datetime  # the database's time


_ACTIONS = ", ".join(
    f"('{move.name}', '{source}', '{move.target}')" for move in MOVES for source in move.sources
)

# One plan serves tables of any size. A plan that is made while they are small would read them from
# end to end, or all steps of a run, so it is left no other way than by the key:
# ``= ANY (ARRAY[x])`` is an equality that can only be looked up, and OFFSET 0 brings the whole key
# together before that.
#
# The time is taken once a run, after its lock: what ends, what begins and the run itself then tell
# one story, and a cancel that came before, or comes after, compares.
#
# A move that is made ends the claim. A start needs a run that is running, ours and in time; a move
# needs the same but the time: a run that is out of time can still end, only not go to sleep.
_BOUNDARY = f"""
WITH asked AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::float8[],
        $7::timestamptz[]) WITH ORDINALITY AS a (run_id, token, action, output, error, wait,
        wake_at, place)
),
locked AS MATERIALIZED (
    SELECT r.id, r.metronome_id, r.status, r.deadline_at, a.*,
        r.lease_token IS NOT DISTINCT FROM a.token AS ours
    FROM asked a JOIN runs r ON r.id = ANY (ARRAY[a.run_id])
    ORDER BY a.run_id
    FOR NO KEY UPDATE OF r
),
held AS MATERIALIZED (
    SELECT k.*, c.now, coalesce(k.deadline_at <= c.now, false) AS late
    FROM locked k, LATERAL (SELECT clock_timestamp() AS now WHERE k.id IS NOT NULL) c
),
ended AS (
    UPDATE steps s SET status = l.end_status,
        output = coalesce(CAST(l.end_output AS json), s.output), error = l.end_error,
        metadata = coalesce(CAST(l.end_metadata AS json), s.metadata),
        lease_token = NULL, wake_at = NULL,
        completed_at = l.now, updated_at = l.now
    FROM (
        SELECT * FROM unnest($8::int[], $9::int[], $10::text[], $11::text[], $12::text[],
            $13::text[]) AS e (place, seq, end_status, end_output, end_error, end_metadata)
        JOIN held USING (place) OFFSET 0
    ) AS l
    WHERE s.run_id = ANY (ARRAY[l.id]) AND s.seq = l.seq AND s.status IN ({sql_list(OPEN_STEP)})
      AND (s.lease_token = l.token OR s.lease_token IS NULL AND l.ours)
),
slept AS (
    UPDATE steps s SET wake_at = l.sleep_until, lease_token = NULL,
        output = coalesce(CAST(l.sleep_output AS json), s.output), updated_at = l.now
    FROM (
        SELECT * FROM unnest($14::int[], $15::int[], $16::timestamptz[], $17::text[])
            AS z (place, seq, sleep_until, sleep_output)
        JOIN held USING (place) OFFSET 0
    ) AS l
    WHERE s.run_id = ANY (ARRAY[l.id]) AND s.seq = l.seq AND s.status = '{RUNNING}'
      AND s.lease_token = l.token AND l.ours AND l.status NOT IN ({sql_list(TERMINAL)})
),
started AS (
    INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, attempt, status, input,
        metadata, lease_token, started_at, completed_at)
    SELECT l.id, b.seq, l.metronome_id, b.node_id, b.node_type, b.attempt, b.status,
        CAST(b.input AS json), CAST(b.metadata AS json),
        CASE WHEN b.status = '{RUNNING}' THEN l.token END,
        CASE WHEN b.status = '{RUNNING}' THEN l.now END,
        CASE WHEN b.status <> '{RUNNING}' THEN l.now END
    FROM unnest($18::int[], $19::int[], $20::text[], $21::text[], $22::int[], $23::text[],
        $24::text[], $25::text[])
        AS b (place, seq, node_id, node_type, attempt, status, input, metadata)
    JOIN held l ON l.place = b.place
    WHERE l.ours AND l.status = '{RUNNING}' AND (b.status <> '{RUNNING}' OR NOT l.late)
    RETURNING run_id, started_at
),
moved AS (
    UPDATE runs r SET status = t.target,
        output = CAST(l.output AS json), error = l.error,
        completed_at = CASE WHEN t.target IN ({sql_list(TERMINAL)}) THEN l.now END,
        due_at = CASE t.action
            WHEN '{BACKOFF.name}'
                THEN least(l.now + l.wait * interval '1 second', l.deadline_at)
            WHEN '{SLEEP.name}' THEN least(l.wake_at, l.deadline_at) END,
        next_attempt_at = CASE t.action
            WHEN '{BACKOFF.name}' THEN l.now + l.wait * interval '1 second'
            WHEN '{SLEEP.name}' THEN l.wake_at END,
        attempt_due = (t.action = '{BACKOFF.name}'),
        lease_token = NULL, locked_by = NULL, locked_at = NULL, updated_at = l.now
    FROM held l JOIN (VALUES {_ACTIONS}) AS t (action, source, target)
        ON t.action = l.action AND t.source = l.status
    WHERE r.id = ANY (ARRAY[l.id]) AND l.ours AND (t.action <> '{SLEEP.name}' OR NOT l.late)
)
SELECT l.status, l.ours, l.late, (SELECT max(started_at) FROM started WHERE run_id = l.id),
    coalesce(l.now, clock_timestamp())
FROM asked a LEFT JOIN held l ON l.place = a.place
ORDER BY a.place
"""

# The parameters' types, in order: the run and its move, then ends, sleeps, starts. Each argument is
# cast as well, since a list of nothing but NULLs has no type of its own.
_TYPES = (
    *("text[]", "text[]", "text[]", "text[]", "text[]", "float8[]", "timestamptz[]"),
    *("int[]", "int[]", "text[]", "text[]", "text[]", "text[]"),
    *("int[]", "int[]", "timestamptz[]", "text[]"),
    *("int[]", "int[]", "text[]", "text[]", "int[]", "text[]", "text[]", "text[]"),
)
_CASTS = ", ".join(f"%s::{kind}" for kind in _TYPES)
_PREPARE = f"PREPARE boundary ({', '.join(_TYPES)}) AS {_BOUNDARY}"
_EXECUTE = f"EXECUTE boundary ({_CASTS})"
_PLAIN = re.sub(
    r"\$(\d+)::[a-z0-9]+\[\]",
    lambda m: f"%s::{_TYPES[int(m[1]) - 1]}",
    _BOUNDARY.replace("%", "%%"),
)

# One plan, made once: making one for each boundary would take longer than the boundary. It must
# suit tables of any size, so it may read none of them from end to end, even where they are empty.
_PLANNER = (
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;"
    " SET enable_mergejoin = off; SET enable_bitmapscan = off"
)

# Connections through a pooler that changes servers between statements: nothing prepared stays.
_unprepared: WeakSet[RawConnection] = WeakSet()


def prepare(connection: RawConnection) -> None:
    """Prepare the statement; once per connection, which must be in autocommit."""
    with connection.cursor() as cursor:
        try:
            cursor.execute(_PREPARE)
            cursor.execute(_PLANNER)
        except psycopg2.errors.DuplicatePreparedStatement:
            _unprepared.add(connection)


def write(connection: RawConnection, boundaries: Sequence[Boundary]) -> list[Verdict]:
    """Write the boundaries in one statement and one commit; a verdict for each, in their order.

    ``connection`` has been through ``prepare``. A database error leaves nothing written.
    """
    arguments = _arguments(boundaries)
    with connection.cursor() as cursor:
        if connection not in _unprepared:
            try:
                cursor.execute(_EXECUTE, arguments)
            except psycopg2.errors.InvalidSqlStatementName:
                _unprepared.add(connection)
        if connection in _unprepared:
            cursor.execute(_PLAIN, arguments)
        rows = cursor.fetchall()
    return [_verdict(one, row) for one, row in zip(boundaries, rows, strict=True)]


def _arguments(boundaries: Sequence[Boundary]) -> list[list[Any]]:
    asked: list[list[Any]] = [[] for _ in range(7)]
    ends: list[list[Any]] = [[] for _ in range(6)]
    sleeps: list[list[Any]] = [[] for _ in range(4)]
    starts: list[list[Any]] = [[] for _ in range(8)]
    for place, boundary in enumerate(boundaries, 1):
        run_id, token, move = boundary.run_id, boundary.token, boundary.move or _STAY
        _append(
            asked, (run_id, token, move.action, move.output, move.error, move.wait, move.wake_at)
        )
        for end in boundary.ends:
            _append(ends, (place, end.seq, end.status, end.output, end.error, end.metadata))
        for sleep in boundary.sleeps:
            _append(sleeps, (place, sleep.seq, sleep.wake_at, sleep.output))
        for step in boundary.starts:
            _append(
                starts,
                (
                    place,
                    step.seq,
                    step.node_id,
                    step.node_type,
                    step.attempt,
                    step.status,
                    step.input,
                    step.metadata,
                ),
            )
    return asked + ends + sleeps + starts


_STAY = Move("")


def _append(arrays: list[list[Any]], values: tuple[Any, ...]) -> None:
    for array, value in zip(arrays, values, strict=True):
        array.append(value)


def _verdict(boundary: Boundary, row: tuple[Any, ...]) -> Verdict:
    status, ours, late, started_at, now = row
    answer: Answer = "go"
    if not ours:
        answer = "lease_lost"
    elif status != RUNNING:
        answer = "stopped"
    elif late and (boundary.move is None or boundary.move.action == SLEEP.name):
        answer = "timed_out"
    return Verdict(answer, status, started_at, now)


_RECORDED = """
SELECT s.started_at, clock_timestamp() FROM steps s
WHERE s.run_id = %s AND s.seq = %s AND s.node_id = %s
  AND (s.lease_token = %s OR s.lease_token IS NULL AND s.status = %s)
"""


def recorded(connection: RawConnection, boundary: Boundary) -> Verdict | None:
    """The verdict on a boundary with starts whose answer got lost; None where it never came in."""
    last = boundary.starts[-1]
    with connection.cursor() as cursor:
        cursor.execute(
            _RECORDED, (boundary.run_id, last.seq, last.node_id, boundary.token, last.status)
        )
        row = cursor.fetchone()
    return None if row is None else Verdict("go", RUNNING, row[0], row[1])
