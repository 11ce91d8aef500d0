"""The node boundary against cancels and pauses: no late start, and nothing gets lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from app.db import RawConnection
from app.domain.lifecycle import (
    BACKOFF,
    CANCEL,
    CANCELLED,
    CLAIMABLE,
    COMPLETED,
    DOUBT,
    FAILED,
    MOVES,
    PAUSE,
    RUN_STATUSES,
    RUNNING,
    SKIPPED,
    SLEEP,
    TERMINAL,
    Action,
)
from app.ids import new_id
from app.store import boundary, leases, sweeps
from app.store.boundary import Boundary, Spawn, StepEnd, StepPark, StepStart
from app.store.leases import Claimed
from tests.processes import PATIENCE
from tests.store.world import METRONOME, World, as_held, bound, make_move, step

STOPS = pytest.mark.parametrize("action", [CANCEL, PAUSE], ids=lambda action: action.name)


def hold_lock(connection: RawConnection, *runs: Claimed) -> None:
    """Begin a transaction that has the row locks of runs, as a boundary or cancel under way has."""
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM runs WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE",
            ([run.id for run in runs],),
        )


# -- P1: no start after the ack


@STOPS
def test_a_boundary_that_waits_for_a_stop_starts_nothing(world: World, action: Action) -> None:
    held = world.in_flight()
    writer, gate = world.raw(), world.raw()
    hold_lock(gate, held)
    stopping = world.begin(lambda: world.done(action, held.id))
    world.wait_for_waiters(1)
    writing = world.begin(lambda: boundary.write(writer, [step(held, end=1, start=2)]))
    world.wait_for_waiters(2)  # the lock's queue is in order: the stop comes first
    gate.commit()

    assert stopping.result(PATIENCE).moved
    (verdict,) = writing.result(PATIENCE)

    assert (verdict.answer, verdict.status) == ("stopped", action.target)
    assert [one["status"] for one in world.steps(held.id)] == [COMPLETED]


@STOPS
def test_a_stop_that_waits_for_a_boundary_knows_what_that_started(
    world: World, action: Action
) -> None:
    held = world.in_flight()
    writer, gate = world.raw(), world.raw()
    hold_lock(gate, held)
    writing = world.begin(lambda: boundary.write(writer, [step(held, end=1, start=2)]))
    world.wait_for_waiters(1)
    stopping = world.begin(lambda: world.done(action, held.id))
    world.wait_for_waiters(2)
    gate.commit()

    assert writing.result(PATIENCE)[0].answer == "go"
    stopped = stopping.result(PATIENCE)

    assert stopped.moved
    assert stopped.in_flight == ("n2",)
    started_at = world.steps(held.id)[1]["started_at"]
    assert started_at < stopped.run.updated_at
    if action is CANCEL:
        assert stopped.run.completed_at is not None
        assert started_at < stopped.run.completed_at


@STOPS
def test_a_stop_takes_its_time_after_it_has_waited_for_a_lock(world: World, action: Action) -> None:
    """A row that was only locked is not evaluated again by the UPDATE that waited for it."""
    held = world.in_flight()
    gate = world.raw()
    hold_lock(gate, held)
    stopping = world.begin(lambda: world.done(action, held.id))
    world.wait_for_waiters(1)
    (now,) = world.query("SELECT clock_timestamp() AS now")
    gate.commit()

    assert stopping.result(PATIENCE).run.updated_at > now["now"]


def test_a_boundary_takes_its_time_after_it_has_waited_for_a_lock(world: World) -> None:
    held = world.in_flight()
    gate = world.raw()
    hold_lock(gate, held)
    writing = world.begin(boundary.write, world.raw(), [step(held, end=1, start=2)])
    world.wait_for_waiters(1)
    (now,) = world.query("SELECT clock_timestamp() AS now")
    gate.commit()

    (verdict,) = writing.result(PATIENCE)
    first, second = world.steps(held.id)
    assert now["now"] < first["completed_at"] <= second["started_at"] == verdict.started_at


@STOPS
@pytest.mark.parametrize("stop_first", [True, False], ids=["stop first", "boundaries first"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_batch_loses_the_stopped_run_only(
    world: World, action: Action, stop_first: bool, place: int
) -> None:
    held = [world.in_flight() for _ in range(3)]
    writer, gate = world.raw(), world.raw()
    batch = [step(one, end=1, start=2) for one in held]
    random.Random(place).shuffle(batch)

    def write() -> list[boundary.Verdict]:
        return boundary.write(writer, batch)

    def stop() -> tuple[str, ...]:
        return world.done(action, held[place].id).in_flight

    hold_lock(gate, held[place])
    if stop_first:
        stopping = world.begin(stop)
        world.wait_for_waiters(1)
        writing = world.begin(write)
    else:
        writing = world.begin(write)
        world.wait_for_waiters(1)
        stopping = world.begin(stop)
    world.wait_for_waiters(2)
    gate.commit()

    answers = dict(zip([one.run_id for one in batch], writing.result(PATIENCE), strict=True))
    assert stopping.result(PATIENCE) == (("n1",) if stop_first else ("n2",))
    for index, one in enumerate(held):
        stopped = stop_first and index == place
        assert answers[one.id].answer == ("stopped" if stopped else "go")
        steps = [(row["status"], row["seq"]) for row in world.steps(one.id)]
        assert steps == [(COMPLETED, 1)] + ([] if stopped else [(RUNNING, 2)])


@STOPS
def test_a_stop_that_was_answered_is_seen_by_every_later_boundary(
    world: World, action: Action
) -> None:
    held = world.in_flight()
    world.done(action, held.id)
    for _ in range(2):
        assert world.write(step(held, start=2)).answer == "stopped"
    skipped = Boundary(
        held.id, METRONOME, held.token, starts=[StepStart(3, "n3", "end", 1, status=SKIPPED)]
    )
    assert world.write(skipped).answer == "stopped"
    assert len(world.steps(held.id)) == 1


# -- P2: what is final is not overwritten


def _moves(world: World, held: Claimed) -> dict[str, Callable[[], object]]:
    """Everything that an executor, alive or not, may do to a run."""
    connection = world.raw()
    known = [(held.id, held.token)]
    named = {
        move.name: lambda move=move: world.write(step(held, end=1, start=2, move=move.name))
        for move in MOVES
    }
    return {
        **named,
        "start": lambda: world.write(step(held, end=1, start=2)),
        "claim": lambda: leases.claim(connection, "executor-2", limit=10, lease=60),
        "renew": lambda: leases.renew(connection, known, lease=60),
        "end_lost": lambda: world.write(
            bound(held, ends=[StepEnd(1, FAILED, error=leases.EXECUTOR_LOST)])
        ),
        "spawn": lambda: world.write(
            bound(
                held,
                parks=[StepPark(1, None)],
                spawns=[Spawn(1, new_id("run", after=held.id), METRONOME, "ver_a", "{}")],
            )
        ),
        "close_all": lambda: leases.close_all(connection, held.id, held.token, "why"),
        "let_go": lambda: leases.let_go(connection, held.id, held.token),
        "sweep": lambda: sweeps.sweep(connection),
    }


DEEDS = [*(move.name for move in MOVES), "start", "claim", "renew", "end_lost", "spawn"]
DEEDS += ["close_all", "let_go", "sweep"]


@pytest.mark.parametrize("lease", ["none", "live", "over", "another"])
@pytest.mark.parametrize("status", TERMINAL)
@pytest.mark.parametrize("deed", DEEDS)
def test_nothing_an_executor_does_overwrites_a_final_status(
    world: World, deed: str, status: str, lease: str
) -> None:
    over = {"due_at": "clock_timestamp() - interval '1 hour'"} if lease == "over" else {}
    run_id = world.put(status, held=lease != "none", output="'{\"n\": 7}'", error="'why'", **over)
    before = world.run(run_id)
    held = as_held(before)
    world.put_step(run_id, 1, RUNNING, lease_token=f"'{held.token}'")
    if lease == "another":
        world.execute("UPDATE runs SET lease_token = 'another'")

    _moves(world, held)[deed]()

    after = world.run(run_id)
    kept = ("status", "completed_at", "output", "error", "updated_at", "attempt_count")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert [one["seq"] for one in world.steps(run_id)] == [1]
    assert world.query("SELECT count(*) AS n FROM runs") == [{"n": 1}]
    assert leases.claim(world.raw(), "executor-3", limit=1, lease=60) == []


@pytest.mark.parametrize("status", RUN_STATUSES)
@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_a_move_is_made_exactly_where_the_table_allows_it(
    world: World, move: Action, status: str
) -> None:
    run_id = world.put(status, held=True)
    before = world.run(run_id)
    held = as_held(before)

    verdict = world.write(Boundary(run_id, METRONOME, held.token, move=make_move(held, move.name)))

    after = world.run(run_id)
    if status not in move.sources:
        assert verdict.answer == "stopped"
        assert after == before
        return
    assert verdict.answer == "go"
    assert after["status"] == move.target
    assert (after["lease_token"], after["locked_by"], after["locked_at"]) == (None, None, None)
    assert (after["completed_at"] is not None) == (move.target in TERMINAL)
    assert (after["due_at"] is not None) == (move.target in CLAIMABLE)
    assert (after["next_attempt_at"] is not None) == (move in (BACKOFF, SLEEP))
    assert after["attempt_due"] == (move is BACKOFF)
    assert after["in_doubt"] == (move is DOUBT)


def test_a_move_of_an_unknown_name_is_no_move(world: World) -> None:
    held = world.held()
    before = world.run(held.id)
    assert world.write(Boundary(held.id, METRONOME, held.token)).answer == "go"
    assert world.write(step(held, move="cancel")).answer == "go"
    assert world.run(held.id) == before


# -- P5: the trace tells the truth


@pytest.mark.parametrize("status", RUN_STATUSES)
@pytest.mark.parametrize("ended", [COMPLETED, FAILED, CANCELLED])
def test_a_node_in_flight_records_how_it_ended_whatever_has_become_of_its_run(
    world: World, status: str, ended: str
) -> None:
    run_id = world.put(status, held=True)
    held = as_held(world.run(run_id))
    world.put_step(run_id, 1, RUNNING, lease_token=f"'{held.token}'")

    world.write(
        Boundary(run_id, METRONOME, held.token, ends=[StepEnd(1, ended, '{"n": 1}', "why")])
    )

    (row,) = world.steps(run_id)
    assert (row["status"], row["output"], row["error"]) == (ended, '{"n": 1}', "why")
    assert row["lease_token"] is None
    assert row["started_at"] < row["completed_at"]


@pytest.mark.parametrize("status", [COMPLETED, FAILED, CANCELLED, SKIPPED])
def test_a_finished_step_is_never_touched(world: World, status: str) -> None:
    held = world.held()
    world.put_step(held.id, 1, status, output="'{\"n\": 7}'")
    before = world.steps(held.id)

    world.write(step(held, end=1))
    world.write(step(held, sleep=1))
    world.write(Boundary(held.id, METRONOME, held.token, ends=[StepEnd(1, FAILED, error="no")]))
    leases.close_all(world.raw(), held.id, held.token, "why")
    world.done(CANCEL, held.id)
    leases.let_go(world.raw(), held.id, held.token)

    assert world.steps(held.id) == before


def test_a_cancel_between_a_node_and_its_sleep_is_no_sleep(world: World) -> None:
    held = world.in_flight()
    world.done(CANCEL, held.id)

    assert world.write(step(held, sleep=1)).answer == "stopped"
    assert world.steps(held.id)[0]["lease_token"] == held.token  # still the holder's to end
    assert leases.let_go(world.raw(), held.id, held.token, error="interrupted") == CANCELLED

    (row,) = world.steps(held.id)
    assert (row["status"], row["wake_at"], row["error"]) == (CANCELLED, None, "interrupted")


def test_the_trace_is_in_the_order_in_which_things_happened(world: World) -> None:
    """A step ends before the next one starts, and before its run ends, by the database's clock."""
    held = [world.in_flight() for _ in range(10)]
    writer = world.raw()
    boundary.write(writer, [step(one, end=1, start=2) for one in held])
    boundary.write(writer, [step(one, end=2, move="complete") for one in held])
    for one in held:
        first, second = world.steps(one.id)
        assert first["completed_at"] <= second["started_at"]
        assert second["completed_at"] <= world.run(one.id)["completed_at"]


# -- sleep and time


def test_a_sleeping_node_is_ended_by_whoever_holds_the_run_then(world: World) -> None:
    held = world.in_flight()
    assert world.write(step(held, sleep=1, move="sleep")).answer == "go"
    asleep = world.run(held.id)
    assert (asleep["status"], asleep["lease_token"]) == (RUNNING, None)
    world.expire(held.id)
    again = world.claim("executor-2")
    assert (again.lost, again.begun, again.attempt_count) == (False, True, 1)

    assert world.write(step(held, end=1)).answer == "lease_lost"
    assert world.steps(held.id)[0]["status"] == RUNNING
    assert world.write(step(again, end=1, start=2)).answer == "go"
    assert [one["status"] for one in world.steps(held.id)] == [COMPLETED, RUNNING]


def test_a_sleep_is_over_at_the_runs_deadline(world: World) -> None:
    held = world.held(timeout_ms="5000")
    world.write(step(held, start=1))
    world.write(step(held, sleep=1, move="sleep"))
    run = world.run(held.id)
    assert run["due_at"] == run["deadline_at"] == held.deadline_at


def test_a_run_out_of_time_starts_nothing_but_may_end(world: World) -> None:
    held = world.in_flight()
    world.execute("UPDATE runs SET deadline_at = clock_timestamp() - interval '1 second'")

    assert world.write(step(held, end=1, start=2)).answer == "timed_out"
    assert world.write(step(held, move=SLEEP.name)).answer == "timed_out"
    assert [one["status"] for one in world.steps(held.id)] == [COMPLETED]
    assert world.run(held.id)["status"] == RUNNING
    assert world.write(step(held, move="fail")).answer == "go"
    assert world.run(held.id)["status"] == FAILED


# -- steps that have begun and ended since the last boundary


def rode(held: Claimed, **fields: Any) -> Boundary:
    """The end of the step in flight, one that rode behind it, and one that follows from that."""
    steps = [
        StepStart(2, "n2", "note", 1, status=COMPLETED, output='{"n": 2}'),
        StepStart(3, "n3", "note", 1, status=SKIPPED),
    ]
    end = [StepEnd(1, COMPLETED, output='{"n": 1}')]
    return bound(held, ends=end, starts=steps, **fields)


def test_a_step_that_rode_began_and_ended_at_its_boundary(world: World) -> None:
    held = world.in_flight()
    assert world.write(rode(held)).answer == "go"
    first, second, third = world.steps(held.id)
    assert second["started_at"] == second["completed_at"] == first["completed_at"]
    assert (second["status"], second["output"]) == (COMPLETED, '{"n": 2}')
    assert second["lease_token"] is None
    assert (third["status"], third["started_at"]) == (SKIPPED, None)


@STOPS
def test_what_rode_has_not_happened_where_the_run_was_stopped(world: World, action: Action) -> None:
    held = world.in_flight()
    writer, gate = world.raw(), world.raw()
    hold_lock(gate, held)
    stopping = world.begin(lambda: world.done(action, held.id))
    world.wait_for_waiters(1)
    move = make_move(held, "complete")
    writing = world.begin(lambda: boundary.write(writer, [rode(held, move=move)]))
    world.wait_for_waiters(2)
    gate.commit()
    assert stopping.result(PATIENCE).moved
    assert writing.result(PATIENCE)[0].answer == "stopped"
    assert [one["status"] for one in world.steps(held.id)] == [COMPLETED]


@pytest.mark.parametrize("move", ["complete", "fail", "sleep", None])
def test_what_rode_has_not_happened_where_the_run_is_out_of_time(
    world: World, move: str | None
) -> None:
    held = world.in_flight()
    world.execute("UPDATE runs SET deadline_at = clock_timestamp() - interval '1 second'")
    made = None if move is None else make_move(held, move)
    assert world.write(rode(held, move=made)).answer == "timed_out"
    assert [one["status"] for one in world.steps(held.id)] == [COMPLETED]
    assert world.run(held.id)["status"] == RUNNING


def test_a_lost_answer_about_what_rode_is_found_again(world: World) -> None:
    held = world.in_flight()
    written = rode(held, move=make_move(held, "complete"))
    connection = world.raw()
    assert boundary.recorded(connection, written) is None
    boundary.write(connection, [written])
    again = boundary.recorded(connection, written)
    assert again is not None
    assert again.answer == "go"


@pytest.mark.parametrize("move", [None, SLEEP.name])
def test_a_lost_answer_to_a_run_that_is_out_of_time_is_found_again(
    world: World, move: str | None
) -> None:
    """What was passed over before is in the trace: that alone is no go, and can't be told twice."""
    held = world.in_flight()
    world.execute("UPDATE runs SET deadline_at = clock_timestamp() - interval '1 second'")
    steps = [StepStart(2, "n2", "note", 1, status=SKIPPED)]
    if move is None:
        steps.append(StepStart(3, "n3", "note", 1))
    made = None if move is None else make_move(held, move)
    written = bound(held, starts=steps, move=made)
    connection = world.raw()
    assert boundary.write(connection, [written])[0].answer == "timed_out"
    again = boundary.recorded(connection, written)
    assert again is not None
    assert (again.answer, again.started_at) == ("timed_out", None)
