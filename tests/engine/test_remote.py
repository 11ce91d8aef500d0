"""Nodes that connectors do: dispatched, waited for without a thread, called back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.lifecycle import COMPLETED, FAILED, RUNNING
from tests.connectors import Example, Receiver
from tests.engine.conftest import Lab, node
from tests.engine.operators import sql
from tests.engine.remotes import action, call_back, order, waiting, works_on

Connected = Callable[..., None]


@pytest.fixture(autouse=True)
def _works_on(receiver: Receiver) -> None:
    works_on(receiver)


def test_work_that_is_answered_at_once_is_the_output(
    lab: Lab, connected: Connected, example: Example
) -> None:
    connected(example.url)
    run = lab.queue(
        node("trigger"),
        action(message="Hello {{ trigger.input.name }}", outputKey="thread"),
        node("transform", output={"said": "{{ thread.text }}"}),
        input={"name": "Ada"},
    )
    assert lab.until(run, COMPLETED).output == {"said": "Hello Ada"}
    (_, step, _) = lab.trace(run)
    assert step.input == {"config": {"message": "Hello Ada"}}
    assert step.connector == "action"


def test_the_connector_of_the_subtype_does_it_where_there_is_one(
    lab: Lab, connected: Connected, example: Example
) -> None:
    connected(example.url, name="action.start_thread")
    run = lab.queue(node("trigger"), action(message="hello"))
    lab.until(run, COMPLETED)
    assert lab.trace(run)[1].connector == "action.start_thread"


def test_work_that_takes_longer_is_waited_for_without_a_thread(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    connected(receiver.url, options={"threads": 1})
    run = lab.queue(node("trigger"), action(), node("transform", output="{{ steps.ask.output }}"))
    step, event = waiting(lab, run), order(receiver)
    held = lab.until(run, RUNNING)  # nobody holds it
    assert held.status == RUNNING
    assert step.output is not None
    assert step.output["accepted"] == {"job": 7}
    lab.until(lab.queue(node("trigger")), COMPLETED)  # the only thread is free
    assert call_back(event, "complete", output={"text": "done"}) == "recorded"
    assert lab.until(run, COMPLETED).output == {"text": "done"}
    assert lab.trace(run)[1].output == {"text": "done"}
    assert call_back(event, "complete", output={"text": "again"}) == "duplicate"
    assert lab.get(run).output == {"text": "done"}
    assert len(receiver.events) == 1  # who has ended it itself is told nothing


def test_a_callback_that_comes_before_the_202_is_not_lost(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    outcomes = []

    def answer(event: dict[str, Any]) -> tuple[int, bytes]:
        outcomes.append(call_back(event, "complete", output={"text": "quick"}))
        return 202, b""

    receiver.answer = answer
    connected(receiver.url)
    run = lab.queue(node("trigger"), action())
    assert lab.until(run, COMPLETED).output == {"text": "quick"}
    assert outcomes == ["recorded"]


def test_many_callbacks_at_any_moment_are_all_heard(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    def answer(event: dict[str, Any]) -> tuple[int, bytes]:
        delay = int(event["config"]["n"]) * 0.002
        threading.Timer(delay, call_back, (event, "complete"), {"output": {}}).start()
        return 202, b""

    receiver.answer = answer
    connected(receiver.url)
    nodes = [action(f"ask{number}", n=number) for number in range(20)]
    edges = " ".join(f"trigger>ask{number}" for number in range(20))
    runs = [lab.queue(node("trigger"), *nodes, edges=edges) for _ in range(3)]
    for run in runs:
        lab.until(run, COMPLETED)
    assert {len(lab.trace(run)) for run in runs} == {21}


def test_work_that_fails_is_given_again_where_the_node_says_so(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    connected(receiver.url)
    run = lab.queue(node("trigger"), action(retry={"maxAttempts": 2, "backoffSeconds": 0}))
    first = order(receiver)
    call_back(first, "fail", error="out of paper")
    second = order(receiver, 1)
    assert (second["attempt"], second["nodeId"]) == (2, "ask")
    assert second["callback"]["token"] != first["callback"]["token"]
    assert second["stepId"] != first["stepId"]
    assert call_back(first, "complete", output={}) == "duplicate"
    call_back(second, "complete", output={"text": "done"})
    assert lab.until(run, COMPLETED).output == {"text": "done"}
    assert lab.trace(run)[1].error == "out of paper"


def test_work_that_fails_for_good_fails_the_run_or_takes_its_error_edge(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    connected(receiver.url)
    retry = {"maxAttempts": 5, "backoffSeconds": 0}
    alone = lab.queue(node("trigger"), action(retry=retry))
    call_back(order(receiver), "fail", error="out of paper", retryable=False)
    assert lab.until(alone, FAILED).error == "node ask failed: out of paper"
    caught = lab.queue(
        node("trigger"),
        action(retry=retry),
        node("transform", output="{{ steps.ask.error }}"),
        edges="trigger>ask ask>transform:error",
    )
    call_back(order(receiver, 1), "fail", error="out of paper", retryable=False)
    assert lab.until(caught, COMPLETED).output == {"value": "out of paper"}


def test_a_kind_without_connector_fails_its_run_with_the_name_of_the_setting(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("ticket", retry={"maxAttempts": 5}))
    error = str(lab.until(run, FAILED).error)
    assert "METRONOME_CONNECTORS" in error
    assert "[connectors.ticket]" in error
    assert len(lab.trace(run)) == 2


def test_the_token_is_nowhere_in_the_database(
    lab: Lab, connected: Connected, receiver: Receiver
) -> None:
    connected(receiver.url)
    run = lab.queue(node("trigger"), action())
    waiting(lab, run)
    token = order(receiver)["callback"]["token"]
    for table in ("steps", "runs"):
        rows = sql(lab, f"SELECT CAST(row_to_json(t) AS text) FROM {table} t")
        assert all(token not in row[0] for row in rows)
    assert len(token) >= 40
