"""What came from outside before a failure counts: it is in the trace, and a retry builds on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.lifecycle import CANCELLED, COMPLETED, FAILED
from app.domain.models import Run
from tests.connectors import Receiver
from tests.engine.bodies import inside, loop
from tests.engine.conftest import Lab, node
from tests.engine.operators import (
    ENDLESS,
    calls,
    child,
    children,
    decide,
    is_whole,
    lose,
    retry,
    sql,
    step,
)
from tests.engine.remotes import action, call_back, order, works_on
from tests.processes import PATIENCE, wait_for

Connected = Callable[..., None]
BAD = node("flaky", "bad", failures=1, retryable=False)  # fails once, for good


def beside(lab: Lab, waits: dict[str, Any]) -> Run:
    """A run in which ``waits`` waits beside a gate that is in flight, behind which it fails."""
    name = waits["id"]
    run = lab.queue(
        node("trigger"),
        waits,
        node("gate"),
        BAD,
        node("end"),
        edges=f"trigger>{name} trigger>gate gate>bad {name}>end bad>end",
    )
    assert lab.gate.begun.wait(PATIENCE)
    return run


def fails(lab: Lab, run: Run) -> Run:
    """The run, once the branch behind its gate has failed it."""
    lab.gate.open.set()
    failed = lab.until(run, FAILED)
    assert failed.error == "node bad failed: not yet"
    is_whole(lab)
    return failed


def completes_on_retry(lab: Lab, run: Run, node_id: str) -> None:
    """A retry behind the finished steps doesn't do the node again."""
    retry(lab, run, afresh=False)
    lab.until(run, COMPLETED)
    done = [(one.status, one.attempt) for one in lab.trace(run) if one.node_id == node_id]
    assert done == [(COMPLETED, 1)]
    is_whole(lab)


# -- callbacks


@pytest.mark.parametrize(
    ("verb", "body", "ended", "error"),
    [
        ("complete", {"output": {"text": "done"}}, COMPLETED, None),
        ("fail", {"error": "out of paper", "retryable": False}, FAILED, "out of paper"),
    ],
)
def test_a_callback_counts_though_the_request_of_the_dispatch_fails(
    lab: Lab,
    connected: Connected,
    receiver: Receiver,
    verb: str,
    body: dict[str, Any],
    ended: str,
    error: str | None,
) -> None:
    outcomes = []

    def answer(event: dict[str, Any]) -> tuple[int, bytes]:
        if event["type"] == "node.dispatched":
            outcomes.append(call_back(event, verb, **body))
        return 500, b""

    receiver.answer = answer
    connected(receiver.url)
    run = lab.queue(
        node("trigger"), action(retry={"maxAttempts": 3, "backoffSeconds": 0}), max_attempts=2
    )
    wait_for(lambda: lab.get(run).completed_at, message=lambda: str(lab.trace(run)))

    assert lab.get(run).status == ended
    (_, asked) = lab.trace(run)
    assert (asked.status, asked.error, asked.attempt) == (ended, error, 1)
    assert asked.output == body.get("output")
    assert "lateCallback" not in (asked.metadata or {})
    assert outcomes == ["recorded"]
    assert sql(lab, "SELECT event FROM outbox") == []
    assert [event["type"] for event in receiver.events] == ["node.dispatched"]
    is_whole(lab)


def test_a_request_that_fails_without_a_callback_is_made_again(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    receiver.answer = lambda event: (
        (500, b"") if event.get("attempt") == 1 else (200, b'{"output": {"text": "done"}}')
    )
    connected(receiver.url)
    run = lab.queue(node("trigger"), action(retry={"maxAttempts": 2, "backoffSeconds": 0}))
    lab.until(run, COMPLETED)
    assert lab.statuses(run)[1:] == [("ask", FAILED), ("ask", COMPLETED)]


def test_work_that_was_called_back_before_another_branch_failed_is_not_given_again(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    works_on(receiver)
    connected(receiver.url)
    run = beside(lab, action())
    assert call_back(order(receiver), "complete", output={"text": "done"}) == "recorded"

    fails(lab, run)

    asked = step(lab, run, "ask")
    assert (asked.status, asked.output, asked.error) == (COMPLETED, {"text": "done"}, None)
    assert "lateCallback" not in (asked.metadata or {})
    completes_on_retry(lab, run, "ask")
    assert sql(lab, "SELECT event FROM outbox") == []
    assert [event["type"] for event in receiver.events] == ["node.dispatched"]


def test_work_that_failed_before_another_branch_did_fails_with_its_own_error(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    works_on(receiver)
    connected(receiver.url)
    run = beside(lab, action())
    assert call_back(order(receiver), "fail", error="out of paper") == "recorded"
    fails(lab, run)
    asked = step(lab, run, "ask")
    assert (asked.status, asked.error) == (FAILED, "out of paper")
    assert sql(lab, "SELECT event FROM outbox") == []
    assert receiver.of("node.cancelled") == []


# -- nested runs


def paying(lab: Lab) -> str:
    """A workflow that does once what must not be done twice."""
    lab.risky.open.set()
    return lab.workflow("child", node("trigger"), node("risky", "pay"), node("end", output=7))


def test_a_nested_run_that_completed_before_another_branch_failed_is_not_started_again(
    lab: Lab,
) -> None:
    lab.start()
    run = beside(lab, calls(paying(lab)))
    nested = lab.until(child(lab, run), COMPLETED)

    fails(lab, run)

    call = step(lab, run, "call")
    assert (call.status, call.error) == (COMPLETED, None)
    assert call.output is not None
    assert (call.output["runId"], call.output["status"]) == (nested.id, COMPLETED)
    completes_on_retry(lab, run, "call")
    assert [one.id for one in children(lab, run)] == [nested.id]
    assert lab.risky.calls == ["pay"]


def test_a_nested_run_that_still_runs_when_another_branch_fails_is_cancelled(lab: Lab) -> None:
    lab.start()
    run = beside(lab, calls(lab.workflow("endless", node("trigger"), ENDLESS)))
    nested = child(lab, run)
    wait_for(lambda: ("endless", "running") in lab.statuses(nested))
    fails(lab, run)
    assert lab.get(nested).status == CANCELLED
    call = step(lab, run, "call")
    assert (call.status, call.error) == (CANCELLED, "the run failed while this node waited")


@pytest.mark.parametrize("rescued", [True, False])
def test_a_nested_run_that_completed_in_a_loop_that_fails_has_completed(
    lab: Lab, rescued: bool
) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        loop(iterations=1),
        *inside("loop", calls(paying(lab)), node("gate"), BAD),
        node("end", "rescue"),
        edges="trigger>loop gate>bad" + (" loop>rescue:error" if rescued else ""),
    )
    assert lab.gate.begun.wait(PATIENCE)
    lab.until(child(lab, run), COMPLETED)
    lab.gate.open.set()
    lab.until(run, COMPLETED if rescued else FAILED)
    call = step(lab, run, "call")
    assert (call.status, call.error) == (COMPLETED, None)
    is_whole(lab)
    if not rescued:
        completes_on_retry(lab, run, "call")
    assert len(children(lab, run)) == 1
    assert lab.risky.calls == ["pay"]


def test_a_nested_run_that_still_runs_in_a_loop_that_fails_is_cancelled(lab: Lab) -> None:
    lab.start()
    endless = lab.workflow("endless", node("trigger"), ENDLESS)
    run = lab.queue(
        node("trigger"),
        loop(iterations=1),
        *inside("loop", calls(endless), node("gate"), BAD),
        node("end", "rescue"),
        edges="trigger>loop gate>bad loop>rescue:error",
    )
    assert lab.gate.begun.wait(PATIENCE)
    nested = child(lab, run)
    lab.gate.open.set()
    lab.until(run, COMPLETED)
    assert lab.get(nested).status == CANCELLED
    assert step(lab, run, "call").status == CANCELLED
    is_whole(lab)


# -- approvals


def test_a_decision_that_came_before_another_branch_failed_stands(lab: Lab) -> None:
    lab.start()
    run = beside(lab, node("approval"))
    wait_for(lambda: step(lab, run, "approval").status == "waiting_approval")
    assert decide(lab, run, approved=True).outcome == "decided"
    fails(lab, run)
    asked = step(lab, run, "approval")
    assert (asked.status, asked.error) == (COMPLETED, None)
    assert asked.output is not None
    assert (asked.output["decision"], asked.output["comment"]) == ("approved", "so be it")
    completes_on_retry(lab, run, "approval")


# -- executors that are lost while they dispatch


@pytest.mark.parametrize("replay_safe", [False, True])
def test_a_connector_is_told_to_stop_lost_work_unless_it_is_given_it_again(
    lab: Lab, connected: Connected, receiver: Receiver, replay_safe: bool
) -> None:
    let_go = threading.Event()

    def answer(event: dict[str, Any]) -> tuple[int, bytes]:
        if event.get("attempt") == 1 and event["type"] == "node.dispatched":
            assert let_go.wait(PATIENCE)
        return 202, b""

    receiver.answer = answer
    try:
        connected(receiver.url, replay_safe=replay_safe, options={"lease": 90.0, "threads": 1})
        run = lab.queue(node("trigger"), action())
        lost = order(receiver)
        connected(receiver.url, replay_safe=replay_safe)
        lose(lab, run)
        if replay_safe:
            assert call_back(order(receiver, 1), "complete", output={"n": 1}) == "recorded"
            assert lab.until(run, COMPLETED).output == {"n": 1}
            assert sql(lab, "SELECT event FROM outbox") == []
            assert receiver.of("node.cancelled") == []
        else:
            (told,) = wait_for(lambda: receiver.of("node.cancelled"))
            assert told["stepId"] == lost["stepId"]
            assert lab.until(run, "paused").in_doubt
            assert len(receiver.of("node.dispatched")) == 1
        is_whole(lab)
    finally:
        let_go.set()
