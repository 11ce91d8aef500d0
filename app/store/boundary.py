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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, Literal
from weakref import WeakSet

import psycopg2.errors

from app.db import RawConnection
from app.domain.lifecycle import AWAIT_APPROVAL, COMPLETED, MOVES, RUNNING, SLEEP
from app.store.boundary_statement import FORMS, LEAN, PLAIN, SINGLE, WIDE, Form


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
    """A step that begins (``running``), or one that is passed over (``skipped``).

    Or, as ``completed``, one that has begun and ended since the last boundary, with its ``output``
    (JSON text): the boundary ``rides`` then.
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

    @property
    def rides(self) -> bool:
        """Whether steps that have begun and ended are among the starts.

        Where they can't be recorded, since the run is out of time, nothing that follows from them
        is: only the ends are.
        """
        return any(step.status == COMPLETED for step in self.starts)

    def size(self) -> int:
        """How many characters of JSON it carries, but for what is never long."""
        carried = sum(len(end.output or "") for end in self.ends)
        carried += sum(len(step.input or "") + len(step.output or "") for step in self.starts)
        carried += sum(len(spawn.input) for spawn in self.spawns)
        return carried + len((self.move and self.move.output) or "")

    def is_wide(self) -> bool:
        """Whether this concerns more than its own run."""
        tells = any(end.tell for end in self.ends) or any(park.tell for park in self.parks)
        return bool(self.touches or self.spawns or tells)

    def is_lean(self) -> bool:
        """Whether it has nothing of what is rare; it is not wide then either."""
        move = self.move
        return (
            not (self.parks or self.touches or self.spawns)
            and (move is None or (move.wait is None and move.wake_at is None))
            and not any(end.tell or end.heard for end in self.ends)
            and all(step.parent_seq is None and step.connector is None for step in self.starts)
        )


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
            for form in FORMS:
                cursor.execute(form.prepare)
            cursor.execute(_PLANNER)
        except psycopg2.errors.DuplicatePreparedStatement:
            _unprepared.add(connection)


def write(connection: RawConnection, boundaries: Sequence[Boundary]) -> list[Verdict]:
    """Write the boundaries in one statement and one commit; a verdict for each, in their order.

    ``connection`` has been through ``prepare``. No boundary may be of a run that another one of the
    list ``touches``. A database error leaves nothing written.
    """
    form = form_of(boundaries)
    values = arguments(boundaries, form)
    with connection.cursor() as cursor:
        if connection not in _unprepared:
            try:
                cursor.execute(form.execute, values)
            except psycopg2.errors.InvalidSqlStatementName:
                _unprepared.add(connection)
        if connection in _unprepared:
            cursor.execute(form.plain, values)
        rows = cursor.fetchall()
    return [_verdict(one, row) for one, row in zip(boundaries, rows, strict=False)]


def form_of(boundaries: Sequence[Boundary]) -> Form:
    """The leanest form of the statement that can carry all of them."""
    if any(boundary.is_wide() for boundary in boundaries):
        return WIDE
    if not all(boundary.is_lean() for boundary in boundaries):
        return PLAIN
    first = boundaries[0]
    alone = len(boundaries) == 1 and len(first.ends) <= 1 and len(first.starts) <= 1
    return SINGLE if alone else LEAN


def arguments(boundaries: Sequence[Boundary], form: Form) -> list[Any]:
    """What a form of the statement takes: arrays, or for the single one values."""
    made = _arrays(boundaries, form)
    return [array[0] if array else None for array in made] if form is SINGLE else made


def _arrays(boundaries: Sequence[Boundary], form: Form) -> list[list[Any]]:
    rows: tuple[list[tuple[Any, ...]], ...] = ([], [], [], [], [])
    asked, ends, parks, starts, spawns = rows
    end_of, start_of = _GETTERS[form.name]
    full = form.run == PLAIN.run
    for place, boundary in enumerate(boundaries, 1):
        move = boundary.move or _STAY
        when = (move.wait, move.wake_at) if full else ()
        run = (boundary.run_id, boundary.token)
        asked.append((*run, move.action, move.output, move.error, boundary.rides, *when))
        ends += [(place, *end_of(end)) for end in boundary.ends]
        starts += [(place, *start_of(step)) for step in boundary.starts]
        if boundary.parks or boundary.spawns:
            _add_waits(boundary, place, parks, spawns)
    for run_id in {other for boundary in boundaries for other in boundary.touches}:
        asked.append((run_id, None, "", None, None, False, None, None))
    made: list[list[Any]] = []
    groups = (form.run, form.ends, form.parks, form.starts, form.spawns)
    for names, found in zip(groups, rows, strict=True):
        made += (
            [list(array) for array in zip(*found, strict=True)] if found else [[] for _ in names]
        )
    return made


def _add_waits(
    boundary: Boundary, place: int, parks: list[tuple[Any, ...]], spawns: list[tuple[Any, ...]]
) -> None:
    spawning = {spawn.seq for spawn in boundary.spawns}
    # A step that ends neither waits nor starts a run: of two changes to its row only one would
    # be made, and nobody would wait for that run.
    ending = {end.seq for end in boundary.ends}
    for park in boundary.parks:
        if park.seq not in ending:
            told = (park.status, park.wake_at, park.output, park.metadata)
            parks.append((place, park.seq, *told, park.seq in spawning))
    for spawn in boundary.spawns:
        if spawn.seq not in ending:
            run = (spawn.run_id, spawn.metronome_id, spawn.version_id)
            spawns.append((place, spawn.seq, *run, spawn.input, spawn.concurrency_key))


def _getters(form: Form) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    ends = [name.removeprefix("end_") for name in form.ends[1:]]
    return attrgetter(*ends), attrgetter(*form.starts[1:])


_STAY = Move("")
_GETTERS = {form.name: _getters(form) for form in FORMS}


def _verdict(boundary: Boundary, row: tuple[Any, ...]) -> Verdict:
    status, ours, late, now = row[:4]
    action = (boundary.move or _STAY).action
    answer: Answer = "go"
    if not ours:
        answer = "lease_lost"
    elif status not in _SOURCES.get(action, (RUNNING,)):
        answer = "stopped"
    elif late and (boundary.rides or action in _PARKING or action not in _SOURCES):
        answer = "timed_out"
    begun = answer == "go" and any(step.status == RUNNING for step in boundary.starts)
    return Verdict(answer, status, now if begun else None, now)


_RECORDED = """
SELECT s.seq, s.started_at, r.lease_token IS NOT DISTINCT FROM %(token)s, clock_timestamp()
FROM unnest(%(seqs)s::int[], %(nodes)s::text[], %(statuses)s::text[]) AS b (seq, node_id, status)
JOIN steps s ON s.run_id = %(run_id)s AND s.seq = b.seq AND s.node_id = b.node_id
    AND (s.lease_token = %(token)s OR s.lease_token IS NULL AND s.status = b.status)
JOIN runs r ON r.id = s.run_id
ORDER BY s.seq DESC LIMIT 1
"""


def recorded(connection: RawConnection, boundary: Boundary) -> Verdict | None:
    """The verdict on a boundary with starts whose answer got lost; None where it never came in."""
    # What was passed over is recorded even where the run was out of time. What starts is missing
    # then, and the lease is still there that a move would have ended.
    first, last = boundary.starts[0], boundary.starts[-1]
    values = {
        "run_id": boundary.run_id,
        "token": boundary.token,
        "seqs": [first.seq, last.seq],
        "nodes": [first.node_id, last.node_id],
        "statuses": [first.status, last.status],
    }
    with connection.cursor() as cursor:
        cursor.execute(_RECORDED, values)
        row = cursor.fetchone()
    if row is None:
        return None
    seq, started_at, held, now = row
    if seq != last.seq or (boundary.move is not None and held):
        return Verdict("timed_out", RUNNING, None, now)
    return Verdict("go", RUNNING, started_at, now)
