"""Batches of trees: a run and one that changes it never go together, and no two get stuck."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from app.clock import DatabaseClock
from app.db import Database
from app.domain.lifecycle import COMPLETED
from app.engine.writer import BATCH_BYTES, Writer, _Ticket
from app.store import leases
from app.store.boundary import Boundary, Move, StepEnd, StepPark
from tests.processes import wait_for
from tests.store.world import METRONOME, World, bound, step


@pytest.fixture
def world(db: Database) -> Iterator[World]:
    """An empty database, to be filled with runs in any state."""
    made = World(db)
    yield made
    made.close()


def _gathered(writer: Writer, first: Boundary, waiting: list[Boundary]) -> list[list[str]]:
    """The runs of each batch that a writer makes of these, one after the other."""
    writer._waiting.extend(_Ticket(one) for one in waiting)
    batches = [writer._gather(_Ticket(first))]
    while writer._waiting:
        batches.append(writer._gather(writer._waiting.popleft()))
    return [[ticket.boundary.run_id for ticket in batch] for batch in batches]


def _close(*writers: Writer) -> None:
    for writer in writers:
        for link in writer._free:
            link.close()


def _is_waiting(writer: Writer, count: int) -> bool:
    return len(writer._waiting) == count


def _of(run_id: str, *touches: str) -> Boundary:
    return Boundary(run_id, METRONOME, "token", touches=touches)


@pytest.mark.parametrize(
    ("first", "waiting", "batches"),
    [
        (_of("p"), [_of("c", "p"), _of("x")], [["p", "x"], ["c"]]),
        (_of("c", "p"), [_of("x"), _of("p")], [["c", "x"], ["p"]]),
        (_of("x"), [_of("p"), _of("c", "p"), _of("y")], [["x", "p", "y"], ["c"]]),
        (_of("x"), [_of("c", "p"), _of("p"), _of("y")], [["x", "c", "y"], ["p"]]),
        (_of("c", "p"), [_of("d", "p"), _of("e", "q")], [["c", "d", "e"]]),
        (_of("c", "p"), [_of("p", "r"), _of("r")], [["c", "r"], ["p"]]),
        (_of("x"), [_of("x"), _of("y")], [["x", "x", "y"]]),  # an old claim of it and a new one
    ],
)
def test_a_run_and_one_that_touches_it_are_in_different_batches(
    db: Database, first: Boundary, waiting: list[Boundary], batches: list[list[str]]
) -> None:
    assert _gathered(Writer(db, DatabaseClock()), first, waiting) == batches


def test_a_batch_is_no_longer_than_it_may_be_and_none_is_forgotten(db: Database) -> None:
    many = [_of(f"run_{number}", *(["root"] if number % 2 else [])) for number in range(200)]
    for waiting in (many, [_of(f"run_{number}") for number in range(200)]):
        batches = _gathered(Writer(db, DatabaseClock()), _of("first"), waiting)
        assert [len(batch) for batch in batches] == [64, 64, 64, 9]
        assert [run_id for batch in batches for run_id in batch] == [
            "first",
            *(one.run_id for one in waiting),
        ]


def test_what_is_left_for_the_next_batch_keeps_its_order(db: Database) -> None:
    writer = Writer(db, DatabaseClock())
    waiting = [_of("p"), _of("q"), _of("x"), _of("p")]
    assert _gathered(writer, _of("c", "p", "q"), waiting) == [["c", "x"], ["p", "q", "p"]]


def test_what_is_small_does_not_wait_for_what_is_large(db: Database) -> None:
    large = "x" * (BATCH_BYTES - 10)

    def of(run_id: str, output: str) -> Boundary:
        return Boundary(run_id, METRONOME, "token", ends=[StepEnd(1, COMPLETED, output=output)])

    writer = Writer(db, DatabaseClock())
    waiting = [of("large", large), of("b", "1"), of("larger", 2 * large), of("c", "1")]
    assert _gathered(writer, of("a", "1" * 20), waiting) == [["a", "b", "c"], ["large"], ["larger"]]


def test_children_and_parents_that_write_at_once_are_all_written(
    world: World, db: Database
) -> None:
    """Whoever wins, each signal is there when the parent parks, and no two wait in a circle."""
    writer = Writer(db, DatabaseClock())
    parents = [world.in_flight() for _ in range(4)]
    kids = [world.in_flight(parent=one.id) for one in parents for _ in range(3)]
    ends = [bound(one, ends=[StepEnd(1, COMPLETED)], move=Move("complete")) for one in kids]
    parks = [bound(one, parks=[StepPark(1, None)], move=Move("sleep")) for one in parents]
    with world.locked(*(one.id for one in (*parents, *kids))):
        writing = [world.begin(writer.write, one) for one in (*ends, *parks)]
        world.wait_for_waiters(2)
    assert [one.result(10).answer for one in writing] == ["go"] * len(writing)

    ended = [[row["status"] for row in world.steps(one.id)] for one in kids]
    assert ended == [[COMPLETED]] * len(kids)
    taken = leases.claim(world.raw(), "executor-2", limit=99, lease=60)
    assert {one.id for one in taken} == {one.id for one in parents}
    _close(writer)


def test_writers_with_crosswise_batches_wait_for_each_other_in_one_direction(
    world: World, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Two processes, each with the end of a run whose parent the other one writes for."""
    parents = [world.in_flight() for _ in range(2)]
    kids = [world.in_flight(parent=one.id) for one in parents]
    writers = [Writer(db, DatabaseClock(), lanes=1) for _ in parents]
    blockers = [world.in_flight() for _ in writers]
    with world.locked(*(one.id for one in (*parents, *kids))):
        writing = []
        with world.locked(*(one.id for one in blockers)):  # so that the batches gather behind it
            for number, writer in enumerate(writers):
                writing += [world.begin(writer.write, step(blockers[number], end=1))]
            world.wait_for_waiters(2)
            for number, writer in enumerate(writers):
                end = bound(kids[number], move=Move("complete"))
                other = step(parents[1 - number], end=1, start=2)
                writing += [world.begin(writer.write, one) for one in (end, other)]
                gathered = partial(_is_waiting, writer, 2)
                wait_for(gathered, message="two that wait")
        world.wait_for_waiters(2)
    assert [one.result(10).answer for one in writing] == ["go"] * len(writing)
    assert all(world.run(one.id)["signalled"] for one in parents)
    assert "lost the database" not in caplog.text  # as of a deadlock: it would be tried again
    _close(*writers)
