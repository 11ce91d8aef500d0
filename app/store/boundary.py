"""The node boundary: the one statement that the executor sends between two nodes.

For a list of runs it locks the run rows in id order, writes how the finished steps ended, starts
the next step where the run is still running and the lease is ours, or makes the run's next move,
and answers for each run whether to go on.

Cancel and pause lock the same row, so that they and a boundary come one after the other: that is
why no node starts after a cancel was answered. What a node in flight did is recorded whatever
has become of its run meanwhile, fenced by the lease under which the node was started.

The SQL is in boundary_statement.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from weakref import WeakSet

import psycopg2.errors

from app.db import RawConnection
from app.domain.lifecycle import AWAIT_APPROVAL, COMPLETED, MOVES, RUNNING, SLEEP
from app.store.boundary_statement import PLAIN, WIDE


@dataclass(frozen=True, slots=True)
class StepEnd:
    """How a step ended; ``output`` and ``metadata`` are JSON text.

    ``tell`` says that its connector, where it has one, has to know that it was cancelled; ``heard``
    that this end is made of what came from outside, which else is kept in the metadata. Fenced by
    the boundary's lease, or for a step without a lease (asleep) by that on the run.
    """

    seq: int
    status: str
    output: str | None = None
    error: str | None = None
    metadata: str | None = None
    tell: bool = False
    heard: bool = False


@dataclass(frozen=True, slots=True)
class StepPark:
    """A step that goes on without anybody in flight in it: it waits for a time, or for news.

    ``status`` is ``running`` or ``waiting_approval``; ``wake_at`` None means that only news end it.
    ``tell`` says that a connector works at it, which has to know of a pause that came meanwhile.
    """

    seq: int
    wake_at: datetime | None
    output: str | None = None
    status: str = RUNNING
    metadata: str | None = None
    tell: bool = False


@dataclass(frozen=True, slots=True)
class StepStart:
    """A step that begins (``running``), has ended at once (``completed``), or is passed over.

    ``output`` is JSON text, of one that has ended.
    """

    seq: int
    node_id: str
    node_type: str
    attempt: int
    status: str = RUNNING
    input: str | None = None
    metadata: str | None = None
    parent_seq: int | None = None  # inside of a loop: its step
    iteration: int | None = None
    unsafe: bool = False
    connector: str | None = None
    callback_sha256: str | None = None
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Spawn:
    """A nested run that begins with the parking of the step ``seq``; ``input`` is JSON text.

    Neither happens where the run was stopped meanwhile. With a ``concurrency_key`` it waits for a
    place in its group, which is given by ``concurrency.settle``.
    """

    seq: int
    run_id: str
    metronome_id: str
    version_id: str
    input: str
    concurrency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """What becomes of the run: the name of one of lifecycle.MOVES. It ends the claim.

    ``wait`` is seconds for ``backoff``; ``wake_at`` is for ``sleep`` and ``await_approval``, None
    where only news can wake the run; ``output`` is JSON text.
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
    parks: Sequence[StepPark] = ()
    starts: Sequence[StepStart] = ()
    spawns: Sequence[Spawn] = ()
    move: Move | None = None
    # other runs that are locked with this one: the run above, where this one ends, and the root of
    # the tree, where it grows
    touches: Sequence[str] = ()

    def rides(self) -> bool:
        """Whether steps come in that have begun and ended since the last boundary."""
        return any(step.status == COMPLETED for step in self.starts)

    def is_wide(self) -> bool:
        """Whether this concerns more than its own run."""
        tells = any(end.tell for end in self.ends) or any(park.tell for park in self.parks)
        return bool(self.touches or self.spawns or tells)


_PARKING = (SLEEP.name, AWAIT_APPROVAL.name)
_SOURCES = {move.name: move.sources for move in MOVES}
Answer = Literal["go", "stopped", "timed_out", "lease_lost"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run is to do next; only after ``go`` has its step started, or its move been made."""

    answer: Answer
    status: str | None  # of the run, as it was under the lock; None where it is gone
    started_at: datetime | None  # of the step that began
    now: datetime  # the database's time


# One plan, made once: making one for each boundary would take longer than the boundary. It must
# suit tables of any size, so it may read none of them from end to end, even where they are empty.
_PLANNER = (
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;"
    " SET enable_mergejoin = off; SET enable_bitmapscan = off; SET jit = off"
)

# Connections through a pooler that changes servers between statements: nothing prepared stays.
_unprepared: WeakSet[RawConnection] = WeakSet()


def prepare(connection: RawConnection) -> None:
    """Prepare the statement; once per connection, which must be in autocommit."""
    with connection.cursor() as cursor:
        try:
            cursor.execute(PLAIN.prepare)
            cursor.execute(WIDE.prepare)
            cursor.execute(_PLANNER)
        except psycopg2.errors.DuplicatePreparedStatement:
            _unprepared.add(connection)


def write(connection: RawConnection, boundaries: Sequence[Boundary]) -> list[Verdict]:
    """Write the boundaries in one statement and one commit; a verdict for each, in their order.

    ``connection`` has been through ``prepare``. No boundary may be of a run that another one of the
    list ``touches``. A database error leaves nothing written.
    """
    form = WIDE if any(boundary.is_wide() for boundary in boundaries) else PLAIN
    arguments = _arguments(boundaries, wide=form is WIDE)
    with connection.cursor() as cursor:
        if connection not in _unprepared:
            try:
                cursor.execute(form.execute, arguments)
            except psycopg2.errors.InvalidSqlStatementName:
                _unprepared.add(connection)
        if connection in _unprepared:
            cursor.execute(form.plain, arguments)
        rows = cursor.fetchall()
    return [_verdict(one, row) for one, row in zip(boundaries, rows, strict=False)]


def _arguments(boundaries: Sequence[Boundary], *, wide: bool) -> list[list[Any]]:
    asked: list[list[Any]] = [[] for _ in range(8)]
    ends: list[list[Any]] = [[] for _ in range(8)]
    parks: list[list[Any]] = [[] for _ in range(7)]
    starts: list[list[Any]] = [[] for _ in range(14)]
    spawns: list[list[Any]] = [[] for _ in range(7 if wide else 0)]
    for place, boundary in enumerate(boundaries, 1):
        run_id, token, move = boundary.run_id, boundary.token, boundary.move or _STAY
        done = (move.output, move.error, move.wait, move.wake_at)
        _append(asked, (run_id, token, move.action, *done, boundary.rides()))
        spawning = {spawn.seq for spawn in boundary.spawns}
        # A step that ends neither waits nor starts a run: of two changes to its row only one would
        # be made, and nobody would wait for that run.
        ending = {end.seq for end in boundary.ends}
        for end in boundary.ends:
            _append(
                ends,
                (place, *(getattr(end, name) for name in _END_FIELDS)),
            )
        for park in boundary.parks:
            if park.seq in ending:
                continue
            _append(
                parks,
                (
                    place,
                    park.seq,
                    park.status,
                    park.wake_at,
                    park.output,
                    park.metadata,
                    park.seq in spawning,
                ),
            )
        for step in boundary.starts:
            _append(starts, (place, *(getattr(step, name) for name in _START_FIELDS)))
        for spawn in boundary.spawns:
            if spawn.seq in ending:
                continue
            _append(
                spawns,
                (
                    place,
                    spawn.seq,
                    spawn.run_id,
                    spawn.metronome_id,
                    spawn.version_id,
                    spawn.input,
                    spawn.concurrency_key,
                ),
            )
    for run_id in {other for boundary in boundaries for other in boundary.touches}:
        _append(asked, (run_id, None, "", None, None, None, None, False))
    return asked + ends + parks + starts + spawns


_STAY = Move("")
_END_FIELDS = ("seq", "status", "output", "error", "metadata", "tell", "heard")
_START_FIELDS = (
    *("seq", "node_id", "node_type", "attempt", "status", "input", "metadata"),
    *("parent_seq", "iteration", "unsafe", "connector", "callback_sha256", "output"),
)


def _append(arrays: list[list[Any]], values: tuple[Any, ...]) -> None:
    for array, value in zip(arrays, values, strict=True):
        array.append(value)


def _verdict(boundary: Boundary, row: tuple[Any, ...]) -> Verdict:
    status, ours, late, started_at, now = row[:5]
    action = (boundary.move or _STAY).action
    answer: Answer = "go"
    if not ours:
        answer = "lease_lost"
    elif status not in _SOURCES.get(action, (RUNNING,)):
        answer = "stopped"
    elif late and (action in _PARKING or action not in _SOURCES or boundary.rides()):
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
