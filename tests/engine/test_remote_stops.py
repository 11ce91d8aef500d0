"""Work of connectors that is called off, held, or given up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.lifecycle import CANCELLED, COMPLETED, FAILED, PAUSE, PAUSED, RESUME
from tests.connectors import Example, Receiver
from tests.engine.conftest import Lab, node
from tests.engine.operators import request, sql
from tests.engine.remotes import action, call_back, order, waiting, works_on
from tests.processes import PATIENCE, wait_for

Connected = Callable[..., None]


@pytest.fixture(autouse=True)
def _works_on(receiver: Receiver) -> None:
    works_on(receiver)


def test_a_cancel_stops_the_work_at_once(lab: Lab, connected: Connected, example: Example) -> None:
    connected(example.url)
    run = lab.queue(node("trigger"), action(seconds=600), node("transform", output=1))
    waiting(lab, run)
    wait_for(lambda: example.said("started", run.id))
    done = lab.cancel(run)
    assert (done.run.status, done.in_flight) == (CANCELLED, ())
    wait_for(lambda: example.said("stopped", run.id), message=example.logs)
    assert example.said("node.cancelled", "ask")
    assert lab.statuses(run) == [("trigger", COMPLETED), ("ask", CANCELLED)]
    wait_for(lambda: sql(lab, "SELECT id FROM outbox") == [])


def test_without_notifications_the_connector_is_told_by_polling(
    lab: Lab, connected: Connected, example: Example
) -> None:
    connected(example.url, options={"listen": False, "poll": 0.1})
    run = lab.queue(node("trigger"), action(seconds=600))
    waiting(lab, run)
    lab.cancel(run)
    wait_for(lambda: example.said("stopped", run.id), message=example.logs)


def test_a_cancel_during_the_request_cuts_it_and_tells_the_connector(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def answer(event: dict[str, Any]) -> tuple[int, bytes]:
        if event["type"] == "node.dispatched":
            begun.set()
            let_go.wait(60)
        return 200, b"{}"

    receiver.answer = answer
    try:
        connected(receiver.url)
        run = lab.queue(node("trigger"), action())
        assert begun.wait(30)
        assert lab.cancel(run).in_flight == ("ask",)
        # Told by the cancel, and again once the request is over: the first may have overtaken it.
        told = wait_for(lambda: receiver.of("node.cancelled"))
        assert {event["stepId"] for event in told} == {order(receiver)["stepId"]}
        lab.until(run, CANCELLED)
        assert lab.statuses(run)[1] == ("ask", CANCELLED)
        assert "cut off while it was under way" in str(lab.trace(run)[1].error)
    finally:
        let_go.set()


def test_a_callback_after_a_cancel_is_kept_and_changes_nothing_else(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    connected(receiver.url)
    run = lab.queue(node("trigger"), action(), node("transform", output=1))
    waiting(lab, run)
    cancelled = lab.cancel(run).run
    assert call_back(order(receiver), "complete", output={"text": "too late"}) == "late"
    assert lab.get(run) == cancelled
    step = lab.trace(run)[1]
    assert (step.status, step.metadata) == (CANCELLED, step.metadata)
    assert (step.metadata or {})["lateCallback"]["output"] == {"text": "too late"}
    assert len(lab.trace(run)) == 2


def test_a_pause_holds_the_work_and_a_resume_lets_it_go_on(
    lab: Lab, connected: Connected, example: Example
) -> None:
    connected(example.url)
    run = lab.queue(node("trigger"), action(message="done", seconds=2))
    waiting(lab, run)
    request(lab, PAUSE, run)
    wait_for(lambda: example.said("node.paused", run.id), message=example.logs)
    assert not example.said("completed", run.id)
    request(lab, RESUME, run)
    lab.tell()
    assert lab.until(run, COMPLETED).output == {"text": "done"}
    wait_for(lambda: example.said("node.resumed", run.id), message=example.logs)


def test_a_pause_during_the_request_is_told_once_the_work_was_accepted(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def answer(event: dict[str, Any]) -> tuple[int, bytes]:
        if event["type"] != "node.dispatched":
            return 200, b"{}"
        begun.set()
        assert let_go.wait(PATIENCE)
        return 202, b"{}"

    receiver.answer = answer
    connected(receiver.url)
    run = lab.queue(node("trigger"), action())
    assert begun.wait(PATIENCE)
    request(lab, PAUSE, run)
    let_go.set()
    wait_for(lambda: receiver.of("node.paused"))
    lab.until(run, PAUSED)
    request(lab, RESUME, run)
    lab.tell()
    assert call_back(order(receiver), "complete", output={"n": 1}) == "recorded"
    assert lab.until(run, COMPLETED).output == {"n": 1}


def test_work_that_ends_while_its_run_is_paused_is_there_after_the_resume(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    connected(receiver.url)
    run = lab.queue(node("trigger"), action())
    waiting(lab, run)
    request(lab, PAUSE, run)
    assert call_back(order(receiver), "complete", output={"n": 1}) == "recorded"
    assert lab.get(run).status == PAUSED
    request(lab, RESUME, run)
    lab.tell()
    assert lab.until(run, COMPLETED).output == {"n": 1}


def test_silence_fails_the_node_and_calls_the_work_off(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    connected(receiver.url, heartbeat_ms=1_500)
    run = lab.queue(node("trigger"), action())
    assert "has been silent for 1500 ms" in str(lab.until(run, FAILED).error)
    (event,) = wait_for(lambda: receiver.of("node.cancelled"))
    assert "silent" in event["reason"]
    assert call_back(order(receiver), "complete", output={}) == "late"


def test_heartbeats_keep_work_alive(lab: Lab, connected: Connected, example: Example) -> None:
    connected(example.url, heartbeat_ms=3_000)  # the example has a heartbeat every half a second
    run = lab.queue(node("trigger"), action(message="done", seconds=5))
    assert lab.until(run, COMPLETED).output == {"text": "done"}


def test_heartbeats_count_while_another_branch_holds_the_thread(
    lab: Lab, connected: Connected, example: Example
) -> None:
    connected(example.url, heartbeat_ms=3_000)
    run = lab.queue(
        node("trigger"),
        action(message="done", seconds=8),
        node("gate"),
        edges="trigger>ask trigger>gate",
    )
    assert lab.gate.begun.wait(30)
    step = lab.trace(run)[1]
    began = step.started_at

    def passed() -> bool:
        (row,) = sql(
            lab,
            "SELECT wake_at FROM steps WHERE run_id = :id AND node_id = 'ask'"
            " AND wake_at > CAST(:began AS timestamptz) + interval '5 seconds'",
            id=run.id,
            began=began,
        ) or [None]
        return row is not None

    wait_for(passed, message=lambda: str(lab.trace(run)))
    lab.gate.open.set()
    lab.until(run, COMPLETED)
    assert lab.statuses(run)[1] == ("ask", COMPLETED)


def test_no_callback_in_time_fails_the_node(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    connected(receiver.url, callback_timeout_ms=1_500)
    run = lab.queue(node("trigger"), action())
    assert "did not call back within 1500 ms" in str(lab.until(run, FAILED).error)
    wait_for(lambda: receiver.of("node.cancelled"))


def test_the_timeout_of_the_node_ends_the_wait(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    connected(receiver.url)
    run = lab.queue(node("trigger"), action(timeoutMs=3_000))
    assert "timed out after 3000 ms" in str(lab.until(run, FAILED).error)
    wait_for(lambda: receiver.of("node.cancelled"))


def test_the_timeout_of_the_run_calls_the_work_off(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    connected(receiver.url)
    run = lab.queue(node("trigger"), action(), timeout_ms=3_000)
    assert "timed out" in str(lab.until(run, FAILED).error)
    wait_for(lambda: receiver.of("node.cancelled"))


def test_a_failure_elsewhere_in_the_run_calls_the_work_off(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    connected(receiver.url)
    run = lab.queue(
        node("trigger"),
        action(),
        node("transform", output="{{ steps.none.output }}"),
        edges="trigger>ask trigger>transform",
    )
    lab.until(run, FAILED)
    wait_for(lambda: receiver.of("node.cancelled"))
    assert dict(lab.statuses(run))["ask"] in (CANCELLED, FAILED)
