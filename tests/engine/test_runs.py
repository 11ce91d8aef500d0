"""The way of a run through the executor: branches, sleeps, attempts, deadlines, the drain."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.db import Database
from app.domain.models import Run
from app.engine import interpreter
from app.engine.holds import Hold
from app.engine.interpreter import Interpreter
from app.store.leases import EXECUTOR_LOST, EXECUTOR_STOPPED
from tests.engine.conftest import Lab, node
from tests.processes import PATIENCE, wait_for


def _sql(db: Database, statement: str, **values: Any) -> None:
    with db.connect() as connection:
        connection.execute(text(statement), values)


def test_a_run_goes_through_its_nodes_and_answers_what_its_end_says(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("transform", output={"double": "{{ trigger.input.n * 2 }}"}),
        node("end", output={"result": "{{ steps.transform.output.double }}"}),
        input={"n": 21},
    )
    ended = lab.until(run, "completed")
    assert ended.output == {"result": 42}
    assert (ended.attempt_count, ended.error, ended.locked_by) == (1, None, None)
    steps = lab.trace(run)
    assert [(s.seq, s.node_id, s.status, s.attempt) for s in steps] == [
        (1, "trigger", "completed", 1),
        (2, "transform", "completed", 1),
        (3, "end", "completed", 1),
    ]
    moments = [moment for s in steps for moment in (s.started_at, s.completed_at)]
    assert None not in moments
    assert ended.started_at
    assert ended.completed_at
    assert ended.started_at <= min(m for m in moments if m)
    assert max(m for m in moments if m) <= ended.completed_at


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[Hold]:
    """Everything that a worker was given to walk."""
    drive, given = Interpreter.drive, []

    def remember(self: Interpreter, hold: Hold) -> None:
        given.append(hold)
        drive(self, hold)

    monkeypatch.setattr(Interpreter, "drive", remember)
    return given


def test_untaken_branches_are_skipped_and_a_join_waits_for_all(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("condition", conditions=[{"id": "big", "expression": "trigger.input.n > 10"}]),
        node("transform", "large", output={"size": "large"}),
        node("transform", "small", output={"size": "small"}),
        node("note", "below_small"),
        node("end"),
        edges="trigger>condition condition>large:big condition>small:else small>below_small "
        "large>end below_small>end",
        input={"n": 11},
    )
    ended = lab.until(run, "completed")
    assert ended.output == {"size": "large"}
    assert sorted(lab.statuses(run)) == [
        ("below_small", "skipped"),
        ("condition", "completed"),
        ("end", "completed"),
        ("large", "completed"),
        ("small", "skipped"),
        ("trigger", "completed"),
    ]
    assert lab.statuses(run)[-1] == ("end", "completed")
    assert all(s.started_at is None for s in lab.trace(run) if s.status == "skipped")


def test_waiting_branches_wait_side_by_side(lab: Lab) -> None:
    lab.start(threads=1)
    run = lab.queue(
        node("trigger"),
        *(node("delay", f"nap{n}", seconds=0.4) for n in range(30)),
        node("end"),
        edges=" ".join(f"trigger>nap{n} nap{n}>end" for n in range(30)),
    )
    ended = lab.until(run, "completed")
    assert ended.completed_at
    assert ended.started_at
    one_by_one = timedelta(seconds=30 * 0.4)
    assert ended.completed_at - ended.started_at < one_by_one, "they take little more than one nap"
    naps = lab.trace(run)[1:31]
    assert all(s.output and s.output["waitedMs"] >= 400 for s in naps)


def test_what_has_ended_is_in_the_trace_before_the_run_waits(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "HOLD_SECONDS", 3600.0)
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("delay", "nap", seconds=1800),
        node("note", "quick"),
        node("end"),
        edges="trigger>nap trigger>quick nap>end quick>end",
    )
    wait_for(lambda: ("quick", "completed") in lab.statuses(run))
    assert ("nap", "running") in lab.statuses(run)
    assert lab.get(run).locked_by is not None, "a thread waits"


def test_a_long_sleep_is_woken_when_it_is_due(lab: Lab, claims: list[Hold]) -> None:
    lab.start(poll=3600.0)
    run = lab.queue(node("trigger"), node("delay", seconds=1.3), node("end"))
    ended = lab.until(run, "completed")
    assert ended.attempt_count == 1, "to wake up is no new attempt"
    (step,) = [s for s in lab.trace(run) if s.node_id == "delay"]
    assert step.output
    assert step.output["waitedMs"] >= 1300
    assert [hold.claimed.begun for hold in claims] == [False, True], "nobody held it meanwhile"
    assert (step.attempt, step.wake_at) == (1, None)


@pytest.mark.usefixtures("long_backoff")
def test_a_failed_attempt_is_tried_again_at_the_node_that_failed(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"), node("note"), node("flaky", failures=1), node("end"), max_attempts=3
    )

    def waiting() -> Run | None:
        now = lab.get(run)
        return now if now.status == "queued" and now.next_attempt_at else None

    backing_off = wait_for(waiting)
    assert backing_off.error == "node flaky failed: not yet"
    assert backing_off.attempt_count == 1
    _sql(lab.db, "UPDATE runs SET due_at = clock_timestamp()")  # as if the backoff had ended
    ended = lab.until(run, "completed")
    assert (ended.attempt_count, ended.error, ended.output) == (2, None, {"calls": 2})
    assert [(s.node_id, s.status, s.attempt) for s in lab.trace(run)] == [
        ("trigger", "completed", 1),
        ("note", "completed", 1),
        ("flaky", "failed", 1),
        ("flaky", "completed", 2),
        ("end", "completed", 1),
    ]


def test_the_last_attempt_fails_the_run(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("flaky", failures=9), node("end"), max_attempts=1)
    ended = lab.until(run, "failed")
    assert ended.error == "node flaky failed: not yet"
    assert lab.statuses(run) == [("trigger", "completed"), ("flaky", "failed")]


def test_what_can_not_get_better_is_not_tried_again(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"), node("flaky", failures=9, retryable=False), node("end"), max_attempts=5
    )
    assert lab.until(run, "failed").attempt_count == 1


def test_a_node_may_be_tried_again_within_its_attempt(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("flaky", failures=2, retry={"maxAttempts": 3, "backoffSeconds": 0.1}),
        node("end"),
    )
    ended = lab.until(run, "completed")
    assert ended.attempt_count == 1
    assert [s.status for s in lab.trace(run) if s.node_id == "flaky"] == [
        "failed",
        "failed",
        "completed",
    ]


def test_a_missing_name_fails_the_node_that_names_it(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("transform", output={"x": "{{ steps.nowhere.output }}"}),
        node("end"),
        max_attempts=3,
    )
    ended = lab.until(run, "failed")
    assert ended.error
    assert "nowhere" in ended.error
    assert ended.attempt_count == 1, "it would be missing again"


def test_an_exception_of_a_handler_fails_its_node(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("flaky", raises=True), node("end"))
    assert lab.until(run, "failed").error == "node flaky failed: RuntimeError: out of the blue"


def test_an_output_that_can_not_be_stored_fails_its_node_only(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("flaky", value="x" * 20_000), node("end"))
    other = lab.queue(node("trigger"), node("end"))
    ended = lab.until(run, "failed")
    assert ended.error
    assert "bigger than 10,000 bytes" in ended.error
    lab.until(other, "completed")
    lab.flaky.calls.clear()
    nul = lab.queue(node("trigger"), node("flaky", value="a\x01b".replace("\x01", "")), node("end"))
    assert lab.until(nul, "completed").output == {"value": "ab"}


def test_a_run_out_of_time_fails_while_it_sleeps(lab: Lab, claims: list[Hold]) -> None:
    lab.start(poll=3600.0)
    run = lab.queue(node("trigger"), node("delay", seconds=3600), node("end"), timeout_ms=2500)
    ended = lab.until(run, "failed")
    assert ended.error
    assert "timed out" in ended.error
    assert lab.statuses(run) == [("trigger", "completed"), ("delay", "cancelled")]
    assert len(claims) == 2, "nobody held it meanwhile"


def test_a_run_out_of_time_fails_while_a_node_is_in_flight(lab: Lab) -> None:
    lab.start(poll=3600.0)
    run = lab.queue(
        node("trigger"), node("stoppable"), node("end"), timeout_ms=2500, max_attempts=9
    )
    ended = lab.until(run, "failed")
    assert ended.error
    assert "timed out" in ended.error
    assert ended.attempt_count == 1, "a deadline is for all attempts"
    (step,) = [s for s in lab.trace(run) if s.node_id == "stoppable"]
    assert (step.status, step.error) == ("failed", "timed out: stopped: timeout")


def test_a_deaf_node_ends_and_then_the_run_is_out_of_time(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("gate"), node("end"), timeout_ms=2500)
    assert lab.gate.begun.wait(PATIENCE)
    wait_for(lambda: _late(lab))
    lab.gate.open.set()
    ended = lab.until(run, "failed")
    assert ended.error
    assert "timed out" in ended.error
    assert lab.statuses(run) == [("trigger", "completed"), ("gate", "completed")]


def _late(lab: Lab) -> bool:
    with lab.db.connect() as connection:
        row = connection.execute(text("SELECT deadline_at < clock_timestamp() FROM runs"))
        return bool(row.scalar_one())


def test_a_drain_stops_nodes_after_the_grace_and_gives_their_runs_to_others(lab: Lab) -> None:
    first = lab.start(grace=0.2)
    run = lab.queue(node("trigger"), node("stoppable"), node("end"))
    assert lab.stoppable.begun.wait(PATIENCE)
    lab.stop(first)
    free = lab.get(run)
    assert (free.status, free.locked_by) == ("running", None)
    assert lab.trace(run)[1].error == EXECUTOR_STOPPED
    lab.stoppable.begun.clear()
    lab.start()
    assert lab.stoppable.begun.wait(PATIENCE), "another executor goes on"
    assert [(s.status, s.attempt) for s in lab.trace(run)[1:]] == [("failed", 1), ("running", 2)]
    lab.cancel(run)


def test_a_drain_leaves_a_deaf_node_behind_with_a_word_in_the_trace(lab: Lab) -> None:
    executor = lab.start(grace=0.1)
    run = lab.queue(node("trigger"), node("gate"), node("end"))
    assert lab.gate.begun.wait(PATIENCE)
    lab.stop(executor)
    assert lab.get(run).locked_by is None
    assert lab.trace(run)[1].error == EXECUTOR_STOPPED
    lab.gate.open.set()  # the thread that was left behind can't write any more
    lab.start()
    lab.until(run, "completed")
    assert [s.status for s in lab.trace(run)] == ["completed", "failed", "completed", "completed"]


def test_a_drain_lets_a_short_node_end_and_keeps_a_sleep(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "HOLD_SECONDS", 3600.0)  # short enough for the thread to wait
    executor = lab.start(grace=PATIENCE)
    run = lab.queue(node("trigger"), node("gate"), node("end"))
    asleep = lab.queue(node("trigger"), node("delay", seconds=1800), node("end"))
    assert lab.gate.begun.wait(PATIENCE)
    wait_for(lambda: ("delay", "running") in lab.statuses(asleep))
    executor.drain()
    lab.gate.open.set()
    lab.stop(executor)
    assert lab.statuses(run) == [("trigger", "completed"), ("gate", "completed")]
    assert lab.statuses(asleep) == [("trigger", "completed"), ("delay", "running")]
    _sql(lab.db, "UPDATE steps SET wake_at = clock_timestamp() WHERE wake_at IS NOT NULL")
    lab.start()
    lab.until(run, "completed")
    lab.until(asleep, "completed")
    assert [s.attempt for s in lab.trace(asleep)] == [1, 1, 1], "the sleep went on where it was"
    assert lab.gate.calls == ["gate"]


def test_the_run_of_a_lost_executor_goes_on_behind_the_last_finished_step(lab: Lab) -> None:
    """The lease ends while the node is still at work, as it would for a process that is gone."""
    first = lab.start(threads=1)
    run = lab.queue(node("trigger"), node("note"), node("gate"), node("end"))
    assert lab.gate.begun.wait(PATIENCE)
    lab.gate.begun.clear()
    lab.start(threads=1)
    ended = "UPDATE runs SET due_at = clock_timestamp() WHERE locked_by = :first"

    def taken_over() -> bool:
        _sql(lab.db, ended, first=first.id)  # again and again: it may have been renewed
        return lab.gate.begun.is_set()

    wait_for(taken_over, message="the other executor calls the node again")
    lab.gate.open.set()
    lab.until(run, "completed")
    assert [(s.node_id, s.status, s.attempt) for s in lab.trace(run)] == [
        ("trigger", "completed", 1),
        ("note", "completed", 1),
        ("gate", "failed", 1),
        ("gate", "completed", 2),
        ("end", "completed", 1),
    ]
    lost, again = lab.trace(run)[2:4]
    assert lost.error == EXECUTOR_LOST
    assert again.metadata
    assert again.metadata["replayOf"].endswith("_000003")


def test_a_definition_that_can_not_be_read_fails_its_run(lab: Lab) -> None:
    run = lab.queue(node("trigger"), node("end"))
    _sql(lab.db, 'UPDATE versions SET definition = \'{"nodes": [{"id": 1}]}\'')
    lab.start()
    assert lab.until(run, "failed").error == "internal error: KeyError"


def test_executors_say_that_they_live_and_sign_off(lab: Lab) -> None:
    executor = lab.start()
    with lab.db.connect() as connection:
        seen = text("SELECT count(*) FROM executors")
        wait_for(lambda: connection.execute(seen).scalar_one() == 1)
        lab.stop(executor)
        assert connection.execute(seen).scalar_one() == 0


def test_the_whole_scope_may_be_an_output(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("transform", output="{{ steps }}"), node("end"))
    ended = lab.until(run, "completed")
    assert ended.output == {"trigger": {"output": {}}}


def test_a_worker_outlives_a_run_that_it_can_not_walk(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = Interpreter.drive
    broken: list[str] = []

    def raise_once(self: Interpreter, hold: Hold) -> None:
        if not broken:
            broken.append(hold.claimed.id)
            raise RuntimeError("not even an internal error could be written")
        drive(self, hold)

    monkeypatch.setattr(Interpreter, "drive", raise_once)
    lab.start(threads=1, lease=1.0)
    first = lab.queue(node("trigger"), node("end"))
    wait_for(lambda: broken)
    lab.until(lab.queue(node("trigger"), node("end")), "completed")
    lab.until(first, "completed")


@pytest.mark.usefixtures("long_backoff")
def test_a_backoff_ends_with_the_time_of_the_run(lab: Lab) -> None:
    lab.start(poll=3600.0)
    run = lab.queue(node("flaky", failures=9), max_attempts=9, timeout_ms=1500)
    ended = lab.until(run, "failed")
    assert ended.error == "the run timed out: its timeoutMs has passed since it started"
    assert len(lab.flaky.calls) == 1
