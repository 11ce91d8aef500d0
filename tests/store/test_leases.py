"""Who holds a run: claims, heartbeats, take-overs, letting go and tidying up behind the dead."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest

from app.domain.lifecycle import (
    CANCEL,
    CANCELLED,
    CLAIMABLE,
    COMPLETED,
    FAILED,
    MOVES,
    PAUSE,
    PAUSED,
    QUEUED,
    RETRY,
    RUN_STATUSES,
    RUNNING,
    TERMINAL,
)
from app.ids import new_id
from app.store import boundary, leases, sweeps
from app.store.boundary import Boundary, Spawn, StepEnd, StepPark, StepStart
from app.store.leases import NextNode
from tests.processes import PATIENCE
from tests.store.world import METRONOME, World, bound, step

# -- claim


@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
@pytest.mark.parametrize("due", [False, True], ids=["not due", "due"])
@pytest.mark.parametrize("status", RUN_STATUSES)
def test_a_run_is_claimed_exactly_where_the_table_allows_it_and_it_is_due(
    world: World, status: str, due: bool, held: bool
) -> None:
    columns = {"due_at": f"clock_timestamp() {'-' if due else '+'} interval '1 minute'"}
    wanted = due and status in CLAIMABLE
    if not held and status not in CLAIMABLE:
        columns = {}
    run_id = world.put(status, held=held, **columns)
    before = world.run(run_id)

    claimed = leases.claim(world.raw(), "executor-2", limit=5, lease=60)

    after = world.run(run_id)
    if not wanted:
        assert claimed == []
        assert after == before
        return
    assert [one.id for one in claimed] == [run_id]
    assert after["status"] == RUNNING
    assert after["lease_token"] == claimed[0].token != before["lease_token"]
    assert after["locked_by"] == "executor-2"
    assert 55 < (after["due_at"] - after["locked_at"]).total_seconds() < 65
    assert claimed[0].lost is held


def test_the_longest_due_is_claimed_first(world: World) -> None:
    ages = [3, 9, 1, 7, 5]
    made = {age: world.put(due_at=f"clock_timestamp() - interval '{age} minutes'") for age in ages}
    claimed = [
        {one.id for one in leases.claim(world.raw(), "executor-1", limit=2, lease=60)}
        for _ in range(3)
    ]
    assert claimed == [{made[9], made[7]}, {made[5], made[3]}, {made[1]}]


def test_a_claim_waits_for_nobody(world: World) -> None:
    runs = [world.put() for _ in range(3)]
    with world.locked(runs[0], runs[1]):
        claimed = world.begin(
            lambda: leases.claim(world.raw(), "executor-1", limit=3, lease=60)
        ).result(PATIENCE)
        assert [one.id for one in claimed] == [runs[2]]
    assert len(leases.claim(world.raw(), "executor-1", limit=3, lease=60)) == 2


def test_claimers_at_the_same_time_never_get_the_same_run(world: World) -> None:
    rounds, at_once, limit = 30, 4, 3
    barrier = threading.Barrier(at_once)
    taken: list[list[str]] = [[] for _ in range(at_once)]

    def claimer(number: int) -> None:
        connection = world.raw()
        for _ in range(rounds):
            barrier.wait(PATIENCE)
            got = leases.claim(connection, f"executor-{number}", limit=limit, lease=60)
            taken[number] += [one.id for one in got]

    for _ in range(rounds * at_once * limit // 2):
        world.put()
    for one in [world.begin(claimer, number) for number in range(at_once)]:
        one.result(5 * PATIENCE)

    every = [run_id for one in taken for run_id in one]
    assert len(every) == len(set(every)) == rounds * at_once * limit // 2
    locked = {row["id"]: row["locked_by"] for row in world.query("SELECT * FROM runs")}
    for number, mine in enumerate(taken):
        assert {locked[run_id] for run_id in mine} <= {f"executor-{number}"}


def test_an_attempt_is_counted_when_it_begins_and_not_when_it_goes_on(world: World) -> None:
    first = world.held(max_attempts="3", timeout_ms="60000")
    assert (first.attempt_count, first.begun, first.lost) == (1, False, False)
    world.expire(first.id)
    second = world.claim("executor-2")
    assert (second.attempt_count, second.begun, second.lost) == (1, True, True)
    assert second.deadline_at == first.deadline_at
    world.write(step(second, start=1))
    world.write(step(second, end=1, move="backoff"))
    world.expire(first.id)
    third = world.claim("executor-1")
    assert (third.attempt_count, third.begun, third.lost) == (2, True, False)


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (leases._CLAIM % {"limit": 10, "lease": 60, "executor": "'e'"}, "runs_due"),
        (leases.NEXT_DUE, "runs_due"),
        (sweeps._SWEEP % {"limit": 10, "error": "'e'"}, "runs_draining"),
    ],
    ids=["claim", "next due", "sweep"],
)
def test_looking_for_work_reads_its_partial_index_only(
    world: World, statement: str, index: str
) -> None:
    world.execute("SET enable_seqscan = off")
    plan = "\n".join(str(row["QUERY PLAN"]) for row in world.query(f"EXPLAIN {statement}"))
    assert f"{index} on runs" in plan
    assert "Seq Scan on runs" not in plan
    assert re.search(rf"{index} on runs.*\n *Index Cond: .*due_at <", plan)  # it ends in time


# -- heartbeat


def test_a_heartbeat_renews_what_is_held_whatever_its_status_and_tells_it(world: World) -> None:
    running, cancelled, retried, paused, lost = (world.in_flight() for _ in range(5))
    world.done(CANCEL, cancelled.id)
    world.done(CANCEL, retried.id)
    world.done(RETRY, retried.id)
    world.done(PAUSE, paused.id)
    everyone = [running, cancelled, retried, paused, lost]
    world.expire(*(one.id for one in everyone))
    world.execute("UPDATE runs SET lease_token = 'another' WHERE id = %s", lost.id)

    told = leases.renew(world.raw(), [(one.id, one.token) for one in everyone], lease=60)

    assert told == {
        running.id: RUNNING,
        cancelled.id: CANCELLED,
        retried.id: QUEUED,
        paused.id: PAUSED,
    }
    assert leases.statuses(world.raw(), [(one.id, one.token) for one in everyone]) == told
    assert [one.id for one in leases.claim(world.raw(), "executor-2", limit=9, lease=60)] == [
        lost.id
    ]
    assert sweeps.sweep(world.raw()).runs == ()


# -- P6: take-over


def test_a_zombie_changes_nothing(world: World) -> None:
    zombie = world.in_flight("executor-1")
    world.expire(zombie.id)
    owner = world.claim("executor-2")
    lost = StepEnd(1, FAILED, error=leases.EXECUTOR_LOST)
    parked = [StepStart(seq, f"n{seq}", "function", 1) for seq in (2, 3)]
    assert world.write(bound(owner, ends=[lost], starts=parked)).answer == "go"
    assert world.write(bound(owner, parks=[StepPark(3, None)])).answer == "go"
    world.put_step(owner.id, 4, RUNNING, lease_token="'of another one that was lost'")
    before = world.everything()
    connection = world.raw()

    assert world.write(step(zombie, end=1)).answer == "lease_lost"
    assert world.write(step(zombie, end=2)).answer == "lease_lost"
    assert world.write(step(zombie, start=5)).answer == "lease_lost"
    for seq in (1, 2, 3, 4):  # ended, in flight, parked, and left behind by somebody else
        for end in (StepEnd(seq, COMPLETED), StepEnd(seq, FAILED, error=leases.EXECUTOR_LOST)):
            assert world.write(bound(zombie, ends=[end])).answer == "lease_lost"
        assert world.write(step(zombie, sleep=seq)).answer == "lease_lost"
        spawn = Spawn(seq, new_id("run", after=zombie.id), METRONOME, "ver_a", "{}")
        spawning = bound(zombie, parks=[StepPark(seq, None)], spawns=[spawn])
        assert world.write(spawning).answer == "lease_lost"
    for move in MOVES:
        assert world.write(step(zombie, end=1, move=move.name)).answer == "lease_lost"
    assert leases.renew(connection, [(zombie.id, zombie.token)], lease=999) == {}
    assert leases.let_go(connection, zombie.id, zombie.token, nexts=_nexts(5), error="x") is None
    assert leases.let_go(connection, zombie.id, zombie.token, unfinished=True) is None
    leases.close_all(connection, zombie.id, zombie.token, "x")
    assert sweeps.sweep(connection).runs == ()

    assert world.everything() == before


def test_a_zombie_may_still_tell_how_its_own_open_step_ended(world: World) -> None:
    zombie = world.in_flight("executor-1")
    world.expire(zombie.id)
    owner = world.claim("executor-2")

    assert world.write(step(zombie, end=1, start=2)).answer == "lease_lost"
    assert [one["status"] for one in world.steps(zombie.id)] == [COMPLETED]
    lost = StepEnd(1, FAILED, error=leases.EXECUTOR_LOST)
    assert world.write(bound(owner, ends=[lost])).answer == "go"
    assert [one["status"] for one in world.steps(zombie.id)] == [COMPLETED]


def test_whoever_holds_a_run_ends_the_step_that_a_lost_executor_left(world: World) -> None:
    lost = world.in_flight("executor-1")
    world.write(step(lost, sleep=1, start=2))
    world.expire(lost.id)
    owner = world.claim("executor-2")

    end = StepEnd(2, FAILED, error=leases.EXECUTOR_LOST)
    assert world.write(bound(owner, ends=[end])).answer == "go"

    asleep, closed = world.steps(lost.id)
    assert (asleep["status"], closed["status"]) == (RUNNING, FAILED)
    assert closed["error"] == leases.EXECUTOR_LOST
    leases.close_all(world.raw(), owner.id, owner.token, "can't go on")
    assert [one["error"] for one in world.steps(lost.id)] == ["can't go on", leases.EXECUTOR_LOST]


@pytest.mark.parametrize("place", ["live lease", "lease over"])
def test_a_cancelled_run_is_never_taken_over(world: World, place: str) -> None:
    held = world.in_flight()
    world.done(CANCEL, held.id)
    if place == "lease over":
        world.expire(held.id)
    assert leases.claim(world.raw(), "executor-2", limit=9, lease=60) == []


# -- letting go


def _nexts(first: int) -> list[NextNode]:
    return [NextNode(first, "next-a", "end", 1), NextNode(first + 1, "next-b", "http", 1)]


def test_what_was_next_when_the_run_was_cancelled_is_in_the_trace_and_never_started(
    world: World,
) -> None:
    held = world.in_flight()
    world.done(CANCEL, held.id)
    world.write(step(held, end=1, start=2))

    status = leases.let_go(world.raw(), held.id, held.token, nexts=_nexts(2), error="x")

    assert status == CANCELLED
    first, *nexts = world.steps(held.id)
    assert first["status"] == COMPLETED
    assert [(one["node_id"], one["status"], one["started_at"]) for one in nexts] == [
        ("next-a", CANCELLED, None),
        ("next-b", CANCELLED, None),
    ]
    run = world.run(held.id)
    assert (run["lease_token"], run["locked_by"], run["due_at"]) == (None, None, None)
    assert leases.let_go(world.raw(), held.id, held.token, nexts=_nexts(9)) is None
    assert len(world.steps(held.id)) == 3


@pytest.mark.parametrize("status", [status for status in RUN_STATUSES if status != CANCELLED])
def test_only_a_cancelled_run_notes_what_was_next(world: World, status: str) -> None:
    run_id = world.put(status, held=True)
    token = world.run(run_id)["lease_token"]
    world.put_step(run_id, 1, RUNNING, lease_token=f"'{token}'")
    world.put_step(run_id, 2, RUNNING, wake_at="clock_timestamp() + interval '1 hour'")

    assert leases.let_go(world.raw(), run_id, token, nexts=_nexts(3), error="stopped") == status

    own, asleep = world.steps(run_id)
    assert (own["status"], own["error"], own["lease_token"]) == (FAILED, "stopped", None)
    assert (asleep["status"], asleep["wake_at"] is None) == (RUNNING, False)
    run = world.run(run_id)
    assert run["status"] == status
    assert run["lease_token"] is None
    assert (run["due_at"] is not None) == (status in CLAIMABLE)
    if status in CLAIMABLE:
        assert world.claim("executor-2").id == run_id  # due at once


def test_a_run_that_was_let_go_leaves_no_step_open_where_it_was_cancelled(world: World) -> None:
    held = world.in_flight()
    world.write(step(held, sleep=1, start=2))
    world.done(CANCEL, held.id)
    leases.let_go(world.raw(), held.id, held.token, error="interrupted")
    assert [one["status"] for one in world.steps(held.id)] == [CANCELLED, CANCELLED]


# -- the sweep


@pytest.mark.parametrize("status", [s for s in RUN_STATUSES if s not in CLAIMABLE])
def test_the_steps_of_a_dead_executor_are_closed_once_its_lease_is_over(
    world: World, status: str
) -> None:
    run_id = world.put(status, held=True)
    world.put_step(run_id, 1, COMPLETED, output="'{}'")
    world.put_step(
        run_id, 2, RUNNING, lease_token=f"(SELECT lease_token FROM runs WHERE id = '{run_id}')"
    )
    assert sweeps.sweep(world.raw()).runs == ()
    finished = world.steps(run_id)[0]
    updated_at = world.run(run_id)["updated_at"]
    world.expire(run_id)

    assert sweeps.sweep(world.raw()).runs == (run_id,)

    done, closed = world.steps(run_id)
    assert done == finished
    assert (closed["status"], closed["error"]) == (FAILED, leases.EXECUTOR_LOST)
    run = world.run(run_id)
    assert (run["status"], run["updated_at"]) == (status, updated_at)
    assert (run["lease_token"], run["due_at"]) == (None, None)
    assert sweeps.sweep(world.raw()).runs == ()


def test_the_sweep_leaves_runs_alone_that_can_be_claimed(world: World) -> None:
    runs = [world.in_flight() for _ in range(2)]
    world.done(CANCEL, runs[0].id)
    world.done(RETRY, runs[0].id)
    world.expire(*(one.id for one in runs))
    before = world.everything()
    assert sweeps.sweep(world.raw()).runs == ()
    assert world.everything() == before


def test_a_node_that_ends_after_the_sweep_changes_nothing(world: World) -> None:
    held = world.in_flight()
    world.done(CANCEL, held.id)
    world.expire(held.id)
    sweeps.sweep(world.raw())
    before = world.everything()
    assert world.write(step(held, end=1, start=2)).answer == "lease_lost"
    assert leases.let_go(world.raw(), held.id, held.token, nexts=_nexts(2)) is None
    assert world.everything() == before


# -- all at once


def test_nothing_that_locks_runs_waits_in_a_circle(world: World) -> None:
    """Batches, heartbeats, sweeps, claims, cancels and retries of the same runs, at once."""
    held = [world.in_flight() for _ in range(16)]
    pairs = [(one.id, one.token) for one in held]
    rounds = 60

    def repeat(deed: Callable[[int], object]) -> Callable[[], None]:
        def work() -> None:
            for number in range(rounds):
                deed(number)

        return work

    writers = [world.raw() for _ in range(3)]
    chores = [world.raw() for _ in range(6)]
    batches = [
        [Boundary(one.id, METRONOME, one.token, ends=[StepEnd(1, FAILED)]) for one in order]
        for order in (held, held[::-1], held[::2] + held[1::2])
    ]
    deeds: list[Callable[[int], object]] = [
        *(
            lambda n, c=connection, b=batch: boundary.write(c, b)
            for connection, batch in zip(writers, batches, strict=True)
        ),
        lambda n: leases.renew(chores[0], pairs, lease=0.001),
        lambda n: leases.renew(chores[1], pairs[::-1], lease=0.001),
        lambda n: sweeps.sweep(chores[2]),
        lambda n: leases.claim(chores[3], "executor-2", limit=5, lease=0.001),
        lambda n: leases.let_go(chores[4], *pairs[n % len(pairs)]),
        lambda n: leases.close_all(chores[5], *pairs[n % len(pairs)], "x"),
        lambda n: world.done(CANCEL, held[n % len(held)].id),
        lambda n: world.done(RETRY, held[-n % len(held)].id),
        lambda n: world.done(CANCEL, held[-n % len(held)].id),
    ]
    for one in [world.begin(repeat(deed)) for deed in deeds]:
        one.result(5 * PATIENCE)  # raises what the database has raised
    assert {row["status"] for row in world.query("SELECT status FROM runs")} <= {
        QUEUED,
        RUNNING,
        *TERMINAL,
    }
