"""Approvals: what waits for a person, beside what else, and what a decision or a deadline does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.domain.lifecycle import PAUSE, RESUME
from app.domain.models import Page, Run
from app.store import decisions
from tests.engine.conftest import ACTOR, Lab, node
from tests.engine.operators import (
    decide,
    due,
    ended,
    is_whole,
    request,
    retry,
    sql,
    step,
    waits,
)
from tests.processes import wait_for

ASK = node("approval", title="Ship it?", message="{{ trigger.input.what }}")
BOTH = "trigger>approval approval>yes:approved approval>no:rejected"
WAITING = "waiting_approval"


def test_an_approval_waits_without_a_thread_and_tells_who_decided(lab: Lab) -> None:
    lab.start(threads=1, poll=60.0, lease=180.0)
    run = lab.queue(node("trigger"), ASK, node("end"), input={"what": "the ship"})
    waiting = waits(lab, run, WAITING)
    assert (waiting.next_attempt_at, due(lab, run)) == (None, "infinity")
    lab.until(lab.queue(node("trigger"), node("end")), "completed")
    asked = step(lab, run, "approval")
    assert asked.status == WAITING
    assert asked.output == {"title": "Ship it?", "message": "the ship"}
    with lab.db.connect() as connection:
        (listed,) = decisions.page(connection, ACTOR.organization_id, Page(9))
    assert (listed.run_id, listed.node_id) == (run.id, "approval")

    decided = decide(lab, run, approved=True)

    assert (decided.outcome, decided.run.status) == ("decided", "queued")
    answered = lab.until(run, "completed")
    assert answered.attempt_count == 1, "to go on is no new attempt"
    done = step(lab, run, "approval")
    assert done.status == "completed"
    assert done.output is not None
    assert (done.output["decision"], done.output["decidedBy"]) == ("approved", "user_test")
    assert done.output["comment"] == "so be it"
    assert done.output["decidedAt"]
    assert done.completed_at
    audits = sql(lab, "SELECT action FROM audit_events WHERE run_id = :id ORDER BY id", id=run.id)
    assert [one[0] for one in audits] == ["run.created", "run.approved"]
    is_whole(lab)


def test_a_decision_wakes_the_run_in_milliseconds(lab: Lab) -> None:
    """The polls of minutes would be too late: the news can only be the notification."""
    lab.start(poll=60.0, lease=180.0)
    run = lab.queue(node("trigger"), ASK, node("end"), input={"what": "it"})
    waits(lab, run, WAITING)
    decided = decide(lab, run, approved=True)
    answered = lab.until(run, "completed")
    assert ended(answered) - decided.run.updated_at < timedelta(seconds=2)


@pytest.mark.parametrize(
    ("approved", "taken", "passed"), [(True, "yes", "no"), (False, "no", "yes")]
)
def test_the_edges_of_the_decision_are_taken(
    lab: Lab, approved: bool, taken: str, passed: str
) -> None:
    lab.start(listen=False)
    run = lab.queue(
        node("trigger"),
        node("approval"),
        node("end", "yes"),
        node("end", "no"),
        edges=BOTH,
    )
    waits(lab, run, WAITING)
    decide(lab, run, approved)
    lab.until(run, "completed")
    assert step(lab, run, taken).status == "completed"
    assert step(lab, run, passed).status == "skipped"
    is_whole(lab)


def test_a_rejection_without_an_edge_fails_the_run_and_nothing_retries_it(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("approval"), node("end"), max_attempts=5)
    waits(lab, run, WAITING)
    assert decide(lab, run, approved=False).outcome == "decided"
    answered = lab.until(run, "failed")
    assert answered.error == "node approval failed: Rejected by user_test: so be it"
    assert answered.attempt_count == 1
    done = step(lab, run, "approval")
    assert done.status == "failed"
    assert done.output is not None
    assert done.output["decision"] == "rejected"
    is_whole(lab)


def test_a_rejection_may_take_the_error_edge(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("approval"),
        node("end"),
        node("end", "rescue"),
        edges="trigger>approval approval>end approval>rescue:error",
    )
    waits(lab, run, WAITING)
    decide(lab, run, approved=False)
    lab.until(run, "completed")
    assert step(lab, run, "rescue").status == "completed"
    assert step(lab, run, "end").status == "skipped"


# -- the deadline


def at_deadline(lab: Lab, on_deadline: str, status: str) -> Run:
    """A run whose approval nobody decides, once it has ended with ``status``."""
    lab.start(poll=30.0, lease=90.0)
    run = lab.queue(
        node("trigger"),
        node("approval", deadlineSeconds=1.2, onDeadline=on_deadline),
        node("end", "yes"),
        node("end", "no"),
        edges=BOTH,
    )
    waiting = waits(lab, run, WAITING)
    assert waiting.next_attempt_at == step(lab, run, "approval").wake_at
    answered = lab.until(run, status)
    done = step(lab, run, "approval")
    assert done.started_at
    assert done.completed_at
    waited = done.completed_at - done.started_at
    assert timedelta(seconds=1.2) <= waited < timedelta(seconds=6)
    assert done.output is not None
    assert done.output["byDeadline"] is True
    is_whole(lab)
    return answered


def test_nobody_decides_and_the_node_fails(lab: Lab) -> None:
    answered = at_deadline(lab, "fail", "failed")
    assert "Nobody decided before the deadline" in str(answered.error)


@pytest.mark.parametrize(("on_deadline", "taken"), [("approve", "yes"), ("reject", "no")])
def test_nobody_decides_and_the_run_goes_on(lab: Lab, on_deadline: str, taken: str) -> None:
    run = at_deadline(lab, on_deadline, "completed")
    assert step(lab, run, taken).status == "completed"


def test_a_decision_in_time_counts_though_the_run_was_busy_till_after_the_deadline(
    lab: Lab,
) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("approval", deadlineSeconds=1.0),
        node("gate"),
        node("end"),
        edges="trigger>approval trigger>gate approval>end gate>end",
    )
    assert lab.gate.begun.wait(10)
    wait_for(lambda: step(lab, run, "approval").status == WAITING)
    assert decide(lab, run, approved=True).outcome == "decided"
    passed = "SELECT wake_at < clock_timestamp() FROM steps WHERE node_id = 'approval'"
    wait_for(lambda: sql(lab, passed)[0][0])
    lab.gate.open.set()
    lab.until(run, "completed")
    done = step(lab, run, "approval")
    assert done.output is not None
    assert done.output["decision"] == "approved"
    is_whole(lab)


def test_a_decision_behind_the_deadline_is_refused(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("approval", deadlineSeconds=0.3),
        node("gate"),
        node("end"),
        edges="trigger>approval trigger>gate approval>end gate>end",
    )
    assert lab.gate.begun.wait(10)
    wait_for(lambda: step(lab, run, "approval").status == WAITING)
    passed = "SELECT wake_at < clock_timestamp() FROM steps WHERE node_id = 'approval'"
    wait_for(lambda: sql(lab, passed)[0][0])
    assert decide(lab, run, approved=True).outcome == "expired"
    lab.gate.open.set()
    lab.until(run, "failed")
    is_whole(lab)


def test_the_deadline_of_the_run_counts_while_it_waits(lab: Lab) -> None:
    lab.start(poll=30.0, lease=90.0)
    run = lab.queue(node("trigger"), node("approval"), node("end"), timeout_ms=1300)
    waits(lab, run, WAITING)
    answered = lab.until(run, "failed")
    assert answered.error == "the run timed out: its timeoutMs has passed since it started"
    assert step(lab, run, "approval").status == "cancelled"
    assert decide(lab, run, approved=True).outcome == "not_waiting"
    is_whole(lab)


# -- beside other branches


def test_beside_a_sleeping_branch(lab: Lab) -> None:
    lab.start(poll=30.0, lease=90.0)
    run = lab.queue(
        node("trigger"),
        node("approval"),
        node("delay", seconds=1.4),
        node("note", "after_delay"),
        node("end"),
        edges="trigger>approval trigger>delay delay>after_delay approval>end after_delay>end",
    )
    waiting = waits(lab, run, WAITING)
    assert waiting.next_attempt_at == step(lab, run, "delay").wake_at
    wait_for(lambda: ("after_delay", "completed") in lab.statuses(run))
    waits(lab, run, WAITING)
    assert due(lab, run) == "infinity"
    decide(lab, run, approved=True)
    lab.until(run, "completed")
    is_whole(lab)


def test_a_decision_does_not_wake_the_branch_that_sleeps(lab: Lab) -> None:
    lab.start(poll=30.0, lease=90.0)
    run = lab.queue(
        node("trigger"),
        node("approval"),
        node("delay", seconds=3600),
        node("end"),
        edges="trigger>approval trigger>delay approval>end delay>end",
    )
    waits(lab, run, WAITING)
    decide(lab, run, approved=True)
    wait_for(lambda: step(lab, run, "approval").status == "completed")
    asleep = waits(lab, run, "running")
    assert asleep.next_attempt_at == step(lab, run, "delay").wake_at
    assert step(lab, run, "delay").status == "running"
    lab.cancel(run)
    is_whole(lab)


def test_beside_a_running_branch_a_decision_is_kept_till_that_has_ended(lab: Lab) -> None:
    lab.start(poll=30.0, lease=90.0)
    run = lab.queue(
        node("trigger"),
        node("approval"),
        node("gate"),
        node("end"),
        edges="trigger>approval trigger>gate approval>end gate>end",
    )
    assert lab.gate.begun.wait(10)
    wait_for(lambda: step(lab, run, "approval").status == WAITING)
    decided = decide(lab, run, approved=True)
    assert (decided.outcome, decided.run.status) == ("decided", "running")
    assert decide(lab, run, approved=False).outcome == "already_decided"
    lab.gate.open.set()
    lab.until(run, "completed")
    assert lab.gate.calls == ["gate"]
    is_whole(lab)


def test_two_approvals_wait_side_by_side_and_are_decided_one_by_one(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("approval", "first"),
        node("approval", "second"),
        node("end"),
        edges="trigger>first trigger>second first>end second>end",
    )
    waits(lab, run, WAITING)
    assert decide(lab, run, approved=True, node_id="second").node_id == "second"
    wait_for(lambda: step(lab, run, "second").status == "completed")
    waits(lab, run, WAITING)
    assert step(lab, run, "first").status == WAITING
    assert decide(lab, run, approved=True).node_id == "first"
    lab.until(run, "completed")
    is_whole(lab)


def test_a_rejection_ends_the_other_approval_with_the_run(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("approval", "first"),
        node("approval", "second"),
        node("end"),
        edges="trigger>first trigger>second first>end second>end",
    )
    waits(lab, run, WAITING)
    decide(lab, run, approved=False, node_id="second")
    lab.until(run, "failed")
    assert step(lab, run, "first").status == "cancelled"
    assert decide(lab, run, approved=True, node_id="first").outcome == "not_waiting"
    is_whole(lab)


# -- pause, cancel, retry


def test_a_decision_in_a_pause_is_kept_and_counts_after_the_resume(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("approval"), node("end"))
    waits(lab, run, WAITING)
    assert request(lab, PAUSE, run).moved
    decided = decide(lab, run, approved=True)
    assert (decided.outcome, decided.run.status) == ("decided", "paused")
    other = lab.queue(node("trigger"), node("end"))
    lab.until(other, "completed")
    assert lab.get(run).status == "paused"
    assert request(lab, RESUME, run).moved
    lab.until(run, "completed")
    is_whole(lab)


def test_a_resume_without_a_decision_waits_again_for_the_same_step(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("approval"), node("end"))
    waits(lab, run, WAITING)
    request(lab, PAUSE, run)
    request(lab, RESUME, run)
    waits(lab, run, WAITING)
    assert [one.attempt for one in lab.trace(run)] == [1, 1]
    decide(lab, run, approved=True)
    lab.until(run, "completed")
    is_whole(lab)


def test_a_resume_beside_a_sleeping_branch_waits_for_the_decision_again(lab: Lab) -> None:
    lab.start(poll=30.0, lease=90.0)
    run = lab.queue(
        node("trigger"),
        node("approval"),
        node("delay", seconds=3600),
        node("end"),
        edges="trigger>approval trigger>delay approval>end delay>end",
    )
    waits(lab, run, WAITING)
    request(lab, PAUSE, run)
    request(lab, RESUME, run)
    assert waits(lab, run, WAITING).next_attempt_at == step(lab, run, "delay").wake_at
    decide(lab, run, approved=True)
    wait_for(lambda: step(lab, run, "approval").status == "completed")
    lab.cancel(run)
    is_whole(lab)


def test_a_cancel_closes_the_step_and_a_decision_after_it_is_refused(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("approval"), node("end"))
    waits(lab, run, WAITING)
    cancelled = lab.cancel(run)
    assert (cancelled.moved, cancelled.in_flight) == (True, ())
    before = lab.get(run), lab.trace(run)
    assert [one.status for one in before[1]] == ["completed", "cancelled"]
    assert decide(lab, run, approved=True).outcome == "not_waiting"
    assert (lab.get(run), lab.trace(run)) == before
    is_whole(lab)


def test_a_retry_asks_again(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("approval"), node("end"))
    waits(lab, run, WAITING)
    decide(lab, run, approved=False)
    lab.until(run, "failed")
    retry(lab, run, afresh=False)
    waits(lab, run, WAITING)
    assert step(lab, run, "approval").attempt == 2
    decide(lab, run, approved=True)
    lab.until(run, "completed")
    is_whole(lab)
