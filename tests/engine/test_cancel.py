"""What a cancel does to a run that an executor holds: in every state a run can be held in."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest

from app.engine import interpreter
from app.store.boundary import Boundary, Verdict
from tests.engine.bodies import inside, loop
from tests.engine.conftest import Lab, node
from tests.engine.operators import calls, child, retry
from tests.processes import PATIENCE, wait_for

CHAIN = (node("trigger"), node("gate"), node("note", "after"), node("end"))


def test_nothing_starts_behind_the_node_in_flight(lab: Lab) -> None:
    lab.start()
    run = lab.queue(*CHAIN)
    assert lab.gate.begun.wait(PATIENCE)

    cancelled = lab.cancel(run)

    assert (cancelled.moved, cancelled.run.status) == (True, "cancelled")
    assert cancelled.in_flight == ("gate",)
    assert cancelled.run.locked_by is not None, "a node is in flight, so the run is still held"
    lab.gate.open.set()
    ended = lab.until(run, "cancelled")
    assert lab.statuses(run) == [
        ("trigger", "completed"),
        ("gate", "completed"),
        ("after", "cancelled"),
    ]
    gate, after = lab.trace(run)[1:]
    assert gate.output == {"through": "gate"}, "what the node did in the end stays readable"
    assert gate.started_at
    assert ended.completed_at
    assert gate.started_at < ended.completed_at
    assert gate.completed_at
    assert gate.completed_at > ended.completed_at
    assert (after.started_at, after.attempt) == (None, 1)


@pytest.mark.parametrize("afresh", [True, False])
def test_what_was_next_before_a_retry_from_the_start_is_next_no_more(
    lab: Lab, afresh: bool
) -> None:
    lab.start()
    run = lab.queue(*CHAIN)
    assert lab.gate.begun.wait(PATIENCE)
    lab.cancel(run)
    retry(lab, run, afresh=afresh)
    lab.cancel(run)
    lab.gate.open.set()
    lab.until(run, "cancelled")
    told = [("trigger", "completed"), ("gate", "completed")]
    assert lab.statuses(run) == told + ([] if afresh else [("after", "cancelled")])


def test_a_node_that_fails_after_the_cancel_leaves_the_run_cancelled(lab: Lab) -> None:
    lab.kinds["gate"] = gate = type(lab.gate)()
    original = gate.run

    def fail(context: object) -> object:
        original(context)  # type: ignore[arg-type]
        raise ValueError("late trouble")

    gate.run = fail  # type: ignore[assignment, method-assign]
    lab.start()
    run = lab.queue(*CHAIN, max_attempts=5)
    assert gate.begun.wait(PATIENCE)
    lab.cancel(run)
    gate.open.set()
    ended = lab.until(run, "cancelled")
    step = lab.trace(run)[1]
    assert (step.status, step.error) == ("failed", "ValueError: late trouble")
    assert (ended.attempt_count, ended.error) == (1, None)


@pytest.mark.parametrize("listen", [True, False])
def test_an_interruptible_node_ends_at_once(lab: Lab, listen: bool) -> None:
    lab.start(listen=listen)
    run = lab.queue(node("trigger"), node("stoppable"), node("end"))
    assert lab.stoppable.begun.wait(PATIENCE)
    lab.cancel(run)
    lab.until(run, "cancelled")
    steps = lab.trace(run)
    assert [(s.node_id, s.status) for s in steps] == [
        ("trigger", "completed"),
        ("stoppable", "cancelled"),
    ]
    assert steps[1].error == "interrupted: stopped: cancelled"


def test_a_short_sleep_is_interrupted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "HOLD_SECONDS", 3600.0)  # short enough for the thread to wait
    lab.start()
    run = lab.queue(node("trigger"), node("delay", seconds=1800), node("end"))
    wait_for(lambda: ("delay", "running") in lab.statuses(run))
    lab.cancel(run)
    lab.until(run, "cancelled")
    assert lab.statuses(run) == [("trigger", "completed"), ("delay", "cancelled")]


def test_a_long_sleep_holds_no_thread_and_ends_in_the_request(lab: Lab) -> None:
    lab.start(threads=1)
    run = lab.queue(node("trigger"), node("delay", seconds=3600), node("end"))
    asleep = wait_for(lambda: now if (now := lab.get(run)).next_attempt_at else None)
    assert (asleep.status, asleep.locked_by) == ("running", None)
    other = lab.queue(node("trigger"), node("end"))
    lab.until(other, "completed")

    cancelled = lab.cancel(run)

    assert cancelled.in_flight == ()
    assert lab.statuses(run) == [("trigger", "completed"), ("delay", "cancelled")]
    assert lab.get(run).next_attempt_at is None


@pytest.mark.usefixtures("long_backoff")
def test_a_run_that_backs_off_is_never_tried_again(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("flaky", failures=9), node("end"), max_attempts=5)
    wait_for(lambda: lab.get(run).status == "queued" and lab.get(run).next_attempt_at)
    lab.cancel(run)
    calls = len(lab.flaky.calls)
    with lab.db.connect() as connection:  # as if the time of the next attempt had come
        due = connection.exec_driver_sql("SELECT due_at FROM runs").scalar_one()
    assert due is None
    assert lab.get(run).status == "cancelled"
    assert len(lab.flaky.calls) == calls


def test_a_cancel_between_the_record_and_the_call_keeps_the_handler_from_being_called(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last look at the flag: forced by cancelling from within the boundary's own answer."""
    executor = lab.start()
    wait_for(lambda: executor._listener.live)
    write = executor._writer.write

    def cancel_behind(boundary):  # type: ignore[no-untyped-def]
        verdict = write(boundary)
        if any(step.node_id == "gate" for step in boundary.starts):
            lab.cancel(run)
            wait_for(lambda: executor._holds.all()[0].stop.is_set())
        return verdict

    monkeypatch.setattr(executor._writer, "write", cancel_behind)
    run = lab.queue(*CHAIN)
    lab.until(run, "cancelled")
    assert lab.gate.calls == []
    assert lab.statuses(run) == [("trigger", "completed"), ("gate", "cancelled")]


@pytest.mark.parametrize(
    "waits",
    [
        [node("delay", "waits", seconds=3600)],
        [loop("waits", iterations=2), *inside("waits", node("delay", seconds=3600))],
        [calls("failing", "waits")],
    ],
    ids=["delay", "loop", "nested run that has failed"],
)
def test_a_cancel_at_the_moment_of_a_failure_tells_once_of_what_waited(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, waits: list[dict[str, Any]]
) -> None:
    """It comes when the executor has ended all that waits, and before the run has failed."""
    failing = lab.workflow("failing", node("trigger"), node("flaky", failures=9, retryable=False))
    nested = [one for one in waits if one["kind"] == "metronome"]
    for one in nested:
        one["config"]["workflowId"] = failing
    executor = lab.start()
    write = executor._writer.write

    def cancel_before(boundary: Boundary) -> Verdict:
        if boundary.move is not None and boundary.run_id == run.id:
            assert boundary.move.action == "fail"
            lab.cancel(run)
        return write(boundary)

    monkeypatch.setattr(executor._writer, "write", cancel_before)
    run = lab.queue(
        node("trigger"),
        *waits,
        node("gate"),
        node("flaky", "bad", failures=9, retryable=False),
        node("end"),
        edges="trigger>waits trigger>gate gate>bad waits>end bad>end",
    )
    assert lab.gate.begun.wait(PATIENCE)
    if nested:
        lab.until(child(lab, run), "failed")
    lab.gate.open.set()
    lab.until(run, "cancelled")
    assert sorted(lab.statuses(run)) == [
        ("bad", "failed"),
        ("gate", "completed"),
        ("trigger", "completed"),
        ("waits", "cancelled"),
    ]


def test_parallel_branches_all_stop(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("delay", "nap", seconds=3600),
        node("gate"),
        node("note", "third"),
        node("end"),
        edges="trigger>nap trigger>gate trigger>third nap>end gate>end third>end",
    )
    assert lab.gate.begun.wait(PATIENCE)
    cancelled = lab.cancel(run)
    assert cancelled.in_flight == ("gate",), "a sleeper is nobody's node in flight"
    lab.gate.open.set()
    lab.until(run, "cancelled")
    assert lab.statuses(run) == [
        ("trigger", "completed"),
        ("nap", "cancelled"),
        ("gate", "completed"),
        ("third", "cancelled"),
    ]


def test_cancels_at_the_moment_of_the_claim_are_never_lost(lab: Lab) -> None:
    """Cancel and claim race for the same rows: the run is cancelled, and no step starts late."""
    lab.start(threads=8)
    for _ in range(40):
        batch = [lab.queue(node("trigger"), node("note"), node("end")) for _ in range(5)]
        for run in batch:
            lab.cancel(run)
    connection = psycopg2.connect(lab.url)
    with connection, connection.cursor() as cursor:
        wait_for(
            lambda: _count(cursor, "SELECT count(*) FROM runs WHERE lease_token IS NOT NULL") == 0
        )
        late = """SELECT count(*) FROM steps s JOIN runs r ON r.id = s.run_id
                  WHERE r.status = 'cancelled' AND s.started_at > r.completed_at"""
        assert _count(cursor, late) == 0
        assert _count(cursor, "SELECT count(*) FROM steps WHERE completed_at IS NULL") == 0
    connection.close()


def _count(cursor: psycopg2.extensions.cursor, query: str) -> int:
    cursor.connection.rollback()  # a new snapshot
    cursor.execute(query)
    row = cursor.fetchone()
    assert row is not None
    return int(row[0])


def test_a_notification_interrupts_long_before_the_poll(lab: Lab) -> None:
    """The poll and the renewal would be too late: the news can only be the notification."""
    executor = lab.start(poll=3600.0, lease=36_000.0)
    wait_for(lambda: executor._listener.live)
    run = lab.queue(node("trigger"), node("stoppable"), node("end"))
    assert lab.stoppable.begun.wait(PATIENCE)
    lab.cancel(run)
    lab.until(run, "cancelled")
