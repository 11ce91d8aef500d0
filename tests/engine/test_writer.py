"""Group commit: many threads' boundaries in few statements, and each one's outcome is known."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest

from app.clock import DatabaseClock
from app.db import Database, RawConnection
from app.domain.lifecycle import CANCEL, COMPLETED, FAILED, RUNNING
from app.engine.link import Disconnected, Link
from app.engine.writer import GaveUp, Writer
from app.ids import new_id
from app.store import boundary
from app.store.boundary import Boundary, Move, Spawn, StepEnd, StepPark
from app.store.leases import Claimed
from tests.processes import PATIENCE, wait_for
from tests.store.world import METRONOME, World, bound, step


@pytest.fixture
def world(db: Database) -> Iterator[World]:
    """An empty database, to be filled with runs in any state."""
    made = World(db)
    yield made
    made.close()


@pytest.fixture
def writer(db: Database) -> Iterator[Writer]:
    """A writer that ends with the test."""
    made = Writer(db, DatabaseClock())
    yield made
    made.closing.set()
    for link in made._free:
        link.close()


# Those of this test: the executors of other tests may have left some.
_SESSIONS = """
FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'metronome writer%%'
    AND backend_start > (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
"""


def _kill(world: World) -> int:
    """End the writer's sessions, as a restart of the database would; how many there were."""
    return len(world.query(f"SELECT pg_terminate_backend(pid) {_SESSIONS}"))


def _ends(world: World, held: list[Claimed]) -> dict[str, list[str]]:
    return {one.id: [row["status"] for row in world.steps(one.id)] for one in held}


def test_boundaries_of_many_threads_are_all_written_once(world: World, writer: Writer) -> None:
    threads, length = 24, 30
    held = [world.in_flight() for _ in range(threads)]

    def walk(one: Claimed) -> None:
        for seq in range(1, length):
            verdict = writer.write(step(one, end=seq, start=seq + 1))
            assert verdict.answer == "go"
            assert verdict.started_at is not None
        assert writer.write(step(one, end=length, move="complete")).answer == "go"

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(walk, held))

    assert _ends(world, held) == {one.id: [COMPLETED] * length for one in held}
    assert {world.run(one.id)["status"] for one in held} == {COMPLETED}
    sessions = world.query(f"SELECT count(*) AS n {_SESSIONS}")
    assert sessions[0]["n"] <= 2


def test_what_waits_goes_together_and_each_gets_its_own_answer(
    world: World, writer: Writer
) -> None:
    """While the lanes wait for two runs, boundaries gather; one of them is of a cancelled run."""
    held = [world.in_flight() for _ in range(8)]
    world.done(CANCEL, held[5].id)
    with world.locked(held[0].id, held[1].id):
        writing = [world.begin(writer.write, step(held[0], end=1, start=2))]
        world.wait_for_waiters(1)
        writing += [world.begin(writer.write, step(held[1], end=1, start=2))]
        world.wait_for_waiters(2)
        writing += [world.begin(writer.write, step(one, end=1, start=2)) for one in held[2:]]
        wait_for(lambda: len(writer._waiting) == 6, message="six boundaries that wait")
    answers = [one.result(PATIENCE).answer for one in writing]
    assert answers == ["stopped" if one is held[5] else "go" for one in held]
    started = world.query("SELECT count(DISTINCT xmin::text) AS n FROM steps WHERE seq = 2")
    assert started[0]["n"] <= 4  # the two that were alone, and one for the others of each lane


@pytest.mark.parametrize(
    "bad",
    [
        StepEnd(1, COMPLETED, output='{"text": "\\u0000'),
        StepEnd(1, COMPLETED, output="no JSON"),
        StepEnd(1, FAILED, error="a\0b"),
        StepEnd(1, FAILED, error="\ud800"),
        StepEnd(1, "no status"),
        StepEnd(1, COMPLETED, output="[" * 100_000 + "]" * 100_000),
    ],
    ids=["NUL in JSON", "no JSON", "NUL", "surrogate", "status", "too deep"],
)
def test_a_refused_boundary_fails_alone(world: World, writer: Writer, bad: StepEnd) -> None:
    held = [world.in_flight() for _ in range(7)]
    odd = held[4]

    def write(one: Claimed) -> object:
        wanted = step(one, end=1, start=2)
        if one is odd:
            wanted = Boundary(one.id, METRONOME, one.token, ends=[bad])
        try:
            return writer.write(wanted).answer
        except GaveUp:
            raise
        except (psycopg2.Error, ValueError) as error:
            return type(error)

    with world.locked(held[0].id, held[1].id):
        writing = [world.begin(write, held[0])]
        world.wait_for_waiters(1)
        writing += [world.begin(write, held[1])]
        world.wait_for_waiters(2)
        writing += [world.begin(write, one) for one in held[2:]]
        wait_for(lambda: len(writer._waiting) == 5, message="five boundaries that wait")

    answers = [one.result(PATIENCE) for one in writing]
    refused = answers.pop(4)
    assert isinstance(refused, type)
    assert issubclass(refused, Exception)
    assert answers == ["go"] * 6
    for one in held:
        wanted = [RUNNING] if one is odd else [COMPLETED, RUNNING]
        assert [row["status"] for row in world.steps(one.id)] == wanted
    assert writer.write(step(odd, end=1, start=2)).answer == "go"  # nothing was left behind


def test_a_connection_that_dies_under_waiting_boundaries_loses_none(
    world: World, writer: Writer
) -> None:
    held = [world.in_flight() for _ in range(6)]
    with world.locked(held[0].id, held[1].id):
        writing = [world.begin(writer.write, step(one, end=1, start=2)) for one in held]
        world.wait_for_waiters(2)
        assert _kill(world) == 2
        world.wait_for_waiters(2)  # they have come back, and wait again
        assert _ends(world, held[:2]) == {one.id: [RUNNING] for one in held[:2]}

    assert [one.result(PATIENCE).answer for one in writing] == ["go"] * len(held)
    assert _ends(world, held) == {one.id: [COMPLETED, RUNNING] for one in held}


def test_connections_that_die_again_and_again_lose_nothing_and_double_nothing(
    world: World, writer: Writer
) -> None:
    held = [world.in_flight() for _ in range(8)]
    ended = threading.Event()

    def walk(one: Claimed) -> list[datetime | None]:
        starts: list[datetime | None] = []
        while not ended.is_set():
            seq = len(starts) + 1
            verdict = writer.write(step(one, end=seq, start=seq + 1))
            assert verdict.answer == "go"
            starts.append(verdict.started_at)
        return starts

    def kill() -> None:
        killed = 0
        while killed < 10:
            killed += _kill(world)
            ended.wait(0.02)

    with ThreadPoolExecutor(len(held)) as pool:
        walking = [pool.submit(walk, one) for one in held]
        try:
            world.begin(kill).result(PATIENCE)
        finally:
            ended.set()
        told = [one.result(PATIENCE) for one in walking]

    for one, starts in zip(held, told, strict=True):
        steps = world.steps(one.id)
        assert [row["started_at"] for row in steps][1:] == starts
        assert [row["status"] for row in steps] == [COMPLETED] * len(starts) + [RUNNING]


def test_an_answer_that_gets_lost_after_the_commit_is_found_again(
    world: World, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = boundary.write
    lost: list[str] = []

    def lose_the_answer(
        connection: RawConnection, batch: Sequence[Boundary]
    ) -> list[boundary.Verdict]:
        verdicts = real(connection, batch)
        if batch[0].run_id not in lost:
            lost.append(batch[0].run_id)
            connection.close()
            raise psycopg2.OperationalError("the answer got lost")
        return verdicts

    goes_on, ends, cancelled = (world.in_flight() for _ in range(3))
    world.done(CANCEL, cancelled.id)
    monkeypatch.setattr(boundary, "write", lose_the_answer)

    verdict = writer.write(step(goes_on, end=1, start=2))
    assert (verdict.answer, verdict.started_at) == ("go", world.steps(goes_on.id)[1]["started_at"])
    assert writer.write(step(ends, end=1, move="complete")).answer == "lease_lost"
    assert world.run(ends.id)["status"] == COMPLETED
    assert writer.write(step(cancelled, end=1, start=2)).answer == "stopped"
    assert lost == [goes_on.id, ends.id, cancelled.id]
    held = [goes_on, ends, cancelled]
    assert list(_ends(world, held).values()) == [[COMPLETED, RUNNING], [COMPLETED], [COMPLETED]]


def test_a_nested_run_begins_once_when_the_answer_to_its_start_gets_lost(
    world: World, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = boundary.write
    lost: list[str] = []

    def lose_the_answer(
        connection: RawConnection, batch: Sequence[Boundary]
    ) -> list[boundary.Verdict]:
        verdicts = real(connection, batch)
        if batch[0].run_id not in lost:
            lost.append(batch[0].run_id)
            connection.close()
            raise psycopg2.OperationalError("the answer got lost")
        return verdicts

    parents = [world.in_flight() for _ in range(2)]
    monkeypatch.setattr(boundary, "write", lose_the_answer)
    for held, move in zip(parents, (None, Move("sleep")), strict=True):
        spawn = Spawn(1, new_id("run", after=held.id), METRONOME, "ver_a", "{}")
        one = bound(held, parks=[StepPark(1, None)], spawns=[spawn], move=move)
        assert writer.write(one).answer == ("go" if move is None else "lease_lost")
        children = world.query("SELECT id FROM runs WHERE parent_run_id = %s", held.id)
        assert children == [{"id": spawn.run_id}]
        assert world.audits(spawn.run_id) == ["run.created"]
        assert world.steps(held.id)[0]["lease_token"] is None


def test_a_writer_that_is_told_to_end_waits_for_no_database(world: World) -> None:
    held = world.in_flight()
    nowhere = Database("postgresql://metronome@127.0.0.1:1/none?connect_timeout=2")
    writer = Writer(nowhere, DatabaseClock())
    writing = world.begin(lambda: writer.write(step(held, end=1)))
    writer.closing.set()
    with pytest.raises(GaveUp):
        writing.result(PATIENCE)
    nowhere.close()


def test_the_clock_stays_right_when_a_run_is_gone(world: World, db: Database) -> None:
    """A run may be deleted while a thread that has lost it still writes."""
    clock = DatabaseClock()
    writer = Writer(db, clock)
    held = world.in_flight()
    world.execute("DELETE FROM runs")
    assert writer.write(step(held, end=1, start=2)).answer == "lease_lost"
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_database_that_can_not_be_written_to_is_waited_for(db: Database) -> None:
    """As during a failover: what was sent is not at fault, so nothing may fail for it."""
    link = Link(db, "test")

    def write(connection: RawConnection) -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO executors (id, threads) VALUES ('one', 1)")

    link.run(lambda connection: connection.cursor().execute("SET default_transaction_read_only=on"))
    with pytest.raises(Disconnected):
        link.run(write)
    link.run(write)  # on a new connection
    link.close()


def test_an_error_without_words_of_a_crashing_server_is_waited_for(db: Database) -> None:
    """What libpq makes of a server that crashes in its answer: a bare error without a code."""
    link = Link(db, "test")

    def crash(connection: RawConnection) -> None:
        raise psycopg2.DatabaseError("error with status PGRES_TUPLES_OK and no message")

    with pytest.raises(Disconnected):
        link.run(crash)
    with pytest.raises(psycopg2.DataError):
        link.run(lambda connection: connection.cursor().execute("SELECT 1 / 0"))
    link.close()
