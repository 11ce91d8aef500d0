"""Parks: what waits for a time, for news or for a person, and when its run may be taken again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.domain.lifecycle import (
    AWAIT_APPROVAL,
    CANCEL,
    CANCELLED,
    COMPLETED,
    FAILED,
    OPEN_STEP,
    PAUSE,
    PAUSED,
    RESUME,
    RETRY,
    RUN_STATUSES,
    RUNNING,
    SLEEP,
    TERMINAL,
    WAITING_APPROVAL,
)
from app.store import boundary, leases
from app.store.boundary import Move, StepEnd, StepPark, StepStart
from app.store.leases import Claimed
from tests.store.world import World, as_held, bound, step

PARKING = pytest.mark.parametrize("move", [SLEEP, AWAIT_APPROVAL], ids=lambda move: move.name)
SIGNAL = "UPDATE runs SET signalled = true WHERE id = %s"


def due(world: World, run_id: str) -> str:
    """When a run is due, as text: infinity is no time that Python knows."""
    (row,) = world.query("SELECT due_at::text AS due FROM runs WHERE id = %s", run_id)
    return str(row["due"])


def is_due(world: World) -> bool:
    """Whether any run can be claimed now."""
    seconds = leases.next_due(world.raw())
    return seconds is not None and seconds <= 0


# -- the run


@PARKING
@pytest.mark.parametrize("deadline", [None, "sooner", "later"])
@pytest.mark.parametrize("wakes", [True, False], ids=["time", "news only"])
def test_a_parked_run_is_due_at_its_time_or_its_deadline_or_never(
    world: World, move: Any, wakes: bool, deadline: str | None
) -> None:
    minutes = {"sooner": 10, "later": 30}
    columns = {} if deadline is None else {"timeout_ms": str(minutes[deadline] * 60_000)}
    held = world.in_flight(**columns)
    wake_at = held.now + timedelta(minutes=20) if wakes else None

    assert world.write(bound(held, move=Move(move.name, wake_at=wake_at))).answer == "go"

    run = world.run(held.id)
    assert (run["status"], run["lease_token"], run["locked_by"]) == (move.target, None, None)
    assert run["next_attempt_at"] == wake_at
    times = [time for time in (wake_at, held.deadline_at) if time is not None]
    if times:
        assert run["due_at"] == min(times)
    else:
        assert due(world, held.id) == "infinity"


def test_an_approvals_deadline_wakes_its_run(world: World) -> None:
    held = world.in_flight()
    parked = StepPark(1, held.now, status=WAITING_APPROVAL)
    world.write(bound(held, parks=[parked], move=Move(AWAIT_APPROVAL.name, wake_at=held.now)))

    again = world.claim("executor-2")

    assert (again.id, again.lost) == (held.id, False)
    assert world.run(held.id)["status"] == RUNNING
    assert world.write(step(again, end=1, move="complete")).answer == "go"


def test_what_waits_for_news_only_is_never_due(world: World) -> None:
    for move in (SLEEP, AWAIT_APPROVAL):
        held = world.in_flight()
        world.write(bound(held, move=Move(move.name)))
    assert leases.next_due(world.raw()) is None
    assert leases.claim(world.raw(), "executor-2", limit=9, lease=60) == []
    world.put(due_at="clock_timestamp() + interval '1 minute'")
    assert 55 < (leases.next_due(world.raw()) or 0) < 65


@PARKING
@pytest.mark.parametrize("wakes", [True, False], ids=["time", "news only"])
def test_a_signal_that_came_while_the_run_was_held_makes_its_park_due_at_once(
    world: World, move: Any, wakes: bool
) -> None:
    held = world.in_flight()
    world.execute(SIGNAL, held.id)

    wake_at = held.now.replace(year=2999) if wakes else None
    world.write(bound(held, move=Move(move.name, wake_at=wake_at)))

    again = world.claim("executor-2")
    assert again.id == held.id
    assert world.run(held.id)["signalled"] is False
    world.write(bound(again, move=Move(move.name, wake_at=wake_at)))  # the news were looked at
    assert not is_due(world)


@PARKING
def test_a_signal_that_a_park_waits_for_is_not_missed(world: World, move: Any) -> None:
    """The park's statement began before the signal was committed: it must read the row again."""
    held = world.in_flight()
    writer = world.raw()
    with world.locked(held.id) as signaller:
        parking = world.begin(boundary.write, writer, [bound(held, move=Move(move.name))])
        world.wait_for_waiters(1)
        with signaller.cursor() as cursor:
            cursor.execute(SIGNAL, (held.id,))

    assert parking.result(10)[0].answer == "go"
    assert world.claim("executor-2").id == held.id


def test_a_signal_hurries_no_backoff(world: World) -> None:
    held = world.in_flight()
    world.execute(SIGNAL, held.id)
    world.write(step(held, end=1, move="backoff"))
    assert not is_due(world)


@PARKING
@pytest.mark.parametrize("status", [PAUSED, *TERMINAL])
def test_a_run_that_was_stopped_is_not_parked(world: World, status: str, move: Any) -> None:
    run_id = world.put(status, held=True)
    before = world.run(run_id)
    verdict = world.write(bound(as_held(before), move=Move(move.name)))
    assert (verdict.answer, verdict.status) == ("stopped", status)
    assert world.run(run_id) == before


def test_takeovers_are_counted_in_a_row_and_forgotten_at_a_park_or_backoff(world: World) -> None:
    claimed = world.in_flight("executor-0")
    for move in ("sleep", "await_approval", "backoff"):
        assert claimed.takeovers == 0
        for number in (1, 2, 3):
            world.expire(claimed.id)
            claimed = world.claim(f"executor-{number}")
            assert (claimed.takeovers, claimed.lost) == (number, True)
        world.write(bound(claimed, move=Move(move, wait=1, wake_at=claimed.now)))
        assert world.run(claimed.id)["takeovers"] == 0
        world.expire(claimed.id)
        claimed = world.claim()
        assert not claimed.lost
    assert leases.let_go(world.raw(), claimed.id, claimed.token) == RUNNING
    assert (world.claim().takeovers, world.run(claimed.id)["takeovers"]) == (0, 0)


def test_takeovers_are_counted_from_the_last_holder_under_which_a_node_ended_well(
    world: World,
) -> None:
    claimed = world.in_flight()
    counted = []
    for seq, status in enumerate((FAILED, COMPLETED, FAILED, FAILED), 1):
        starts = [StepStart(seq + 1, "n", "function", 1)]
        world.write(bound(claimed, ends=[StepEnd(seq, status)], starts=starts))
        world.expire(claimed.id)
        claimed = world.claim()
        counted.append(claimed.takeovers)
    assert counted == [1, 1, 2, 3]


def test_a_run_that_is_given_back_in_time_does_not_forget_its_takeovers(world: World) -> None:
    """What kills executors may spare one that is just shut down."""
    claimed = world.in_flight()
    world.expire(claimed.id)
    claimed = world.claim()
    leases.let_go(world.raw(), claimed.id, claimed.token)
    assert world.claim().takeovers == 1


# -- the step


@pytest.mark.parametrize("status", [RUNNING, WAITING_APPROVAL])
def test_a_parked_step_is_open_with_nobody_in_flight_in_it(world: World, status: str) -> None:
    held = world.in_flight()
    wake_at = held.now.replace(year=2999)
    park = StepPark(1, wake_at, '{"title": "t"}', status, '{"waitsFor": "x"}')

    assert world.write(bound(held, parks=[park])).answer == "go"

    (row,) = world.steps(held.id)
    assert (row["status"], row["lease_token"], row["wake_at"]) == (status, None, wake_at)
    assert (row["output"], row["metadata"]) == ('{"title": "t"}', '{"waitsFor": "x"}')
    assert row["completed_at"] is None
    assert row["updated_at"] > row["started_at"]
    assert world.run(held.id)["lease_token"] == held.token


def test_a_step_may_be_parked_again_by_whoever_holds_the_run(world: World) -> None:
    held = world.in_flight()
    soon, later = held.now.replace(year=2998), held.now.replace(year=2999)
    parks = [StepPark(1, soon, '{"n": 1}', metadata='{"a": 1, "b": 1}')]
    world.write(bound(held, parks=parks, move=Move("sleep", wake_at=soon)))
    world.expire(held.id)
    again = world.claim("executor-2")

    parks = [StepPark(1, later, metadata='{"b": 2}')]
    assert world.write(bound(again, parks=parks)).answer == "go"

    (row,) = world.steps(held.id)
    assert (row["wake_at"], row["output"]) == (later, '{"n": 1}')
    assert row["metadata"] == '{"a": 1, "b": 2}'
    parks = [StepPark(1, None)]
    assert world.write(bound(held, parks=parks)).answer == "lease_lost"
    assert world.steps(held.id) == [row]


def test_a_step_that_a_lost_executor_left_is_not_parked(world: World) -> None:
    """Nobody knows what it did: it has to be ended."""
    world.in_flight()
    world.execute("UPDATE runs SET due_at = clock_timestamp()")
    owner = world.claim("executor-2")
    before = world.steps(owner.id)
    assert world.write(bound(owner, parks=[StepPark(1, None)])).answer == "go"
    assert world.steps(owner.id) == before


@pytest.mark.parametrize("status", RUN_STATUSES)
def test_a_step_is_parked_where_its_run_may_still_go_on(world: World, status: str) -> None:
    """In a paused run too: nobody is in flight in it, so a cancel can close it at once."""
    run_id = world.put(status, held=True, started_at="clock_timestamp()")
    held = as_held(world.run(run_id))
    world.put_step(run_id, 1, RUNNING, lease_token=f"'{held.token}'")

    world.write(bound(held, parks=[StepPark(1, None)]))

    (row,) = world.steps(run_id)
    assert (row["lease_token"] is None) == (status not in TERMINAL)
    assert row["status"] == RUNNING


def test_a_node_that_drains_while_its_run_is_retried_is_not_parked_but_may_end(
    world: World,
) -> None:
    """It is no part of what comes, and its connector knows of the cancel."""
    held = world.in_flight()
    world.done(CANCEL, held.id)
    world.done(RETRY, held.id)
    before = world.steps(held.id)
    assert world.write(step(held, sleep=1)).answer == "stopped"
    assert world.steps(held.id) == before
    world.write(step(held, end=1))
    assert [one["status"] for one in world.steps(held.id)] == [COMPLETED]


def test_a_sleep_that_finds_the_run_paused_is_kept_and_a_cancel_ends_it(world: World) -> None:
    held = world.in_flight()
    world.done(PAUSE, held.id)
    assert world.write(step(held, sleep=1, move="sleep")).answer == "stopped"
    assert leases.let_go(world.raw(), held.id, held.token, error="interrupted") == PAUSED
    assert [one["status"] for one in world.steps(held.id)] == [RUNNING]

    cancelled = world.done(CANCEL, held.id)

    assert cancelled.in_flight == ()
    assert [one["status"] for one in world.steps(held.id)] == [CANCELLED]


@pytest.mark.parametrize("stop_first", [True, False], ids=["stop first", "park first"])
def test_a_cancel_and_a_park_at_the_same_moment_leave_nothing_open(
    world: World, stop_first: bool
) -> None:
    held = world.in_flight()
    writer = world.raw()

    def park() -> str:
        return boundary.write(writer, [step(held, sleep=1, move="sleep")])[0].answer

    def cancel() -> tuple[str, ...]:
        return world.done(CANCEL, held.id).in_flight

    with world.locked(held.id):
        deeds: list[Any] = [cancel, park] if stop_first else [park, cancel]
        begun = []
        for count, deed in enumerate(deeds, 1):
            begun.append(world.begin(deed))
            world.wait_for_waiters(count)
    results = [one.result(10) for one in begun]

    assert sorted(results, key=str) == ([("n1",), "stopped"] if stop_first else [(), "go"])
    if stop_first:  # it is in flight, and its holder ends it
        leases.let_go(world.raw(), held.id, held.token, error="interrupted")
    (row,) = world.steps(held.id)
    assert (row["status"], row["lease_token"], row["wake_at"]) == (CANCELLED, None, None)
    assert world.run(held.id)["lease_token"] is None


def test_a_step_that_ends_with_the_boundary_that_parks_it_has_ended(world: World) -> None:
    """A loop over an empty list begins and ends between two boundaries."""
    held = world.in_flight()
    park = StepPark(1, None, metadata='{"waitsFor": "iterations"}')
    end = StepEnd(1, COMPLETED, output="{}")

    assert world.write(bound(held, ends=[end], parks=[park], move=Move("complete"))).answer == "go"

    (row,) = world.steps(held.id)
    assert (row["status"], row["lease_token"]) == (COMPLETED, None)


@pytest.mark.parametrize("status", OPEN_STEP)
def test_the_holder_of_the_run_ends_any_open_step_of_it(world: World, status: str) -> None:
    held = world.held()
    world.put_step(held.id, 1, status, wake_at="clock_timestamp() + interval '1 hour'")
    assert world.write(bound(held, ends=[StepEnd(1, FAILED, error="why")])).answer == "go"
    (row,) = world.steps(held.id)
    assert (row["status"], row["wake_at"], row["error"]) == (FAILED, None, "why")


def test_metadata_and_output_gather_over_the_life_of_a_step(world: World) -> None:
    """What a step said at its start and when it was parked is still there when it has ended."""
    held = world.in_flight()
    world.execute("""UPDATE steps SET metadata = '{"replayOf": "step_1", "waitsFor": "x"}'""")

    def now(park: StepPark | None = None, end: StepEnd | None = None) -> tuple[Any, Any]:
        world.write(bound(held, parks=[park] if park else [], ends=[end] if end else []))
        (row,) = world.query("SELECT metadata::jsonb AS m, output::jsonb AS o FROM steps")
        return row["m"], row["o"]

    park = StepPark(1, None, '{"title": "t"}', metadata='{"waitsFor": "callback"}')
    kept = {"replayOf": "step_1", "waitsFor": "callback"}
    assert now(park=park) == (kept, {"title": "t"})
    assert now(park=StepPark(1, None)) == (kept, {"title": "t"})
    kept["branch"] = "error"
    end = StepEnd(1, FAILED, error="why", metadata='{"branch": "error"}')
    assert now(end=end) == (kept, {"title": "t"})


def test_metadata_that_nobody_adds_to_stays_and_the_first_is_taken(world: World) -> None:
    held = world.in_flight()
    world.write(bound(held, ends=[StepEnd(1, COMPLETED, metadata='{"branch": "yes"}')]))
    assert world.steps(held.id)[0]["metadata"] == '{"branch": "yes"}'
    world.put_step(held.id, 2, RUNNING, metadata="'{\"a\":  1}'")
    world.write(bound(held, ends=[StepEnd(2, COMPLETED)]))
    assert world.steps(held.id)[1]["metadata"] == '{"a":  1}'


def test_a_result_that_came_from_outside_outlives_parks_and_ends(world: World) -> None:
    held: Claimed = world.in_flight()
    world.execute("UPDATE steps SET result = '{\"n\": 1}'")
    world.write(bound(held, parks=[StepPark(1, None)]))
    world.write(bound(held, ends=[StepEnd(1, COMPLETED, output="{}")]))
    assert world.steps(held.id)[0]["result"] == '{"n": 1}'


def test_a_resumed_run_goes_on_with_what_is_parked_in_it(world: World) -> None:
    held = world.in_flight()
    world.write(step(held, sleep=1, move="sleep"))
    world.done(PAUSE, held.id)
    before = world.steps(held.id)
    world.execute(SIGNAL, held.id)
    world.done(RESUME, held.id)
    again = world.claim("executor-2")
    assert world.steps(held.id) == before
    assert world.write(step(again, end=1, move="complete")).answer == "go"
    assert world.run(held.id)["status"] == COMPLETED
