"""Nodes that connectors do: dispatched, waited for without a thread, called back, and called off."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from app import create_app
from app.config import Settings
from app.domain.lifecycle import CANCELLED, COMPLETED, FAILED, PAUSE, PAUSED, RESUME, RUNNING
from app.domain.models import Run, Step
from app.nodes.base import NodeLimits
from tests.connectors import Example, Receiver, connector
from tests.engine.conftest import Lab, node
from tests.engine.operators import request, sql
from tests.processes import wait_for

Start = Callable[..., None]


@pytest.fixture
def api_url(database_url: str) -> Iterator[str]:
    """The API on a socket, for those who call back."""
    app = create_app(Settings(database_url=database_url, listen=False))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()
    app.extensions["metronome"].db.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A remote side that answers 202 and leaves the rest to the test."""
    made = Receiver()
    made.answer = lambda event: (202 if event["type"] == "node.dispatched" else 200, b'{"job": 7}')
    yield made
    made.close()


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    """The example of the documentation, as a process."""
    made = Example(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def start(lab: Lab, api_url: str) -> Start:
    """Start an executor whose connector for actions is at a URL."""

    def begin(url: str, *, name: str = "action", options: Any = None, **settings: Any) -> None:
        limits = NodeLimits(
            output_max_bytes=10_000,
            connectors={name: connector(url, name, **settings)},
            public_url=api_url,
        )
        lab.start(limits=limits, **(options or {}))

    return begin


def action(id: str = "ask", **config: Any) -> dict[str, Any]:
    """A node that an agent does."""
    return {**node("action", id, **config), "subtype": "start_thread"}


def waiting(lab: Lab, run: Run, node_id: str = "ask") -> Step:
    """The step of the node, once it waits for its callback."""

    def found() -> Step | None:
        for step in lab.trace(run):
            if step.node_id == node_id and (step.metadata or {}).get("waitsFor") == "callback":
                return step if step.status == RUNNING else None
        return None

    return wait_for(found, message=lambda: str(lab.trace(run)))


def order(receiver: Receiver, number: int = 0) -> dict[str, Any]:
    """The work that the remote side was given, once it has come."""
    return wait_for(lambda: receiver.of("node.dispatched")[number:])[0]


def call(event: dict[str, Any], verb: str, **body: Any) -> str:
    """Call back; the outcome, or "refused"."""
    callback = event["callback"]
    made = urllib.request.Request(
        f"{callback['url']}/{verb}",
        data=json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {callback['token']}",
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(made, timeout=30) as answer:
            return str(answer.headers.get("Callback-Outcome", "heard"))
    except urllib.error.HTTPError as error:
        error.close()
        return "refused"


def test_work_that_is_answered_at_once_is_the_output(
    lab: Lab, start: Start, example: Example
) -> None:
    start(example.url)
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
    lab: Lab, start: Start, example: Example
) -> None:
    start(example.url, name="action.start_thread")
    run = lab.queue(node("trigger"), action(message="hello"))
    lab.until(run, COMPLETED)
    assert lab.trace(run)[1].connector == "action.start_thread"


def test_work_that_takes_longer_is_waited_for_without_a_thread(
    lab: Lab, start: Start, receiver: Receiver
) -> None:
    start(receiver.url, options={"threads": 1})
    run = lab.queue(node("trigger"), action(), node("transform", output="{{ steps.ask.output }}"))
    step, event = waiting(lab, run), order(receiver)
    held = lab.until(run, RUNNING)  # nobody holds it
    assert held.status == RUNNING
    assert step.output is not None
    assert step.output["accepted"] == {"job": 7}
    assert lab.until(lab.queue(node("trigger")), COMPLETED)  # the only thread is free
    assert call(event, "complete", output={"text": "done"}) == "recorded"
    assert lab.until(run, COMPLETED).output == {"text": "done"}
    assert lab.trace(run)[1].output == {"text": "done"}
    assert call(event, "complete", output={"text": "again"}) == "duplicate"
    assert lab.get(run).output == {"text": "done"}
    assert len(receiver.events) == 1  # who has ended it itself is told nothing


def test_a_callback_that_comes_before_the_202_is_not_lost(
    lab: Lab, start: Start, receiver: Receiver
) -> None:
    outcomes = []

    def answer(event: dict[str, Any]) -> tuple[int, bytes]:
        outcomes.append(call(event, "complete", output={"text": "quick"}))
        return 202, b""

    receiver.answer = answer
    start(receiver.url)
    run = lab.queue(node("trigger"), action())
    assert lab.until(run, COMPLETED).output == {"text": "quick"}
    assert outcomes == ["recorded"]


def test_many_callbacks_at_any_moment_are_all_heard(
    lab: Lab, start: Start, receiver: Receiver
) -> None:
    def answer(event: dict[str, Any]) -> tuple[int, bytes]:
        delay = int(event["config"]["n"]) * 0.002
        threading.Timer(delay, call, (event, "complete"), {"output": {}}).start()
        return 202, b""

    receiver.answer = answer
    start(receiver.url)
    nodes = [action(f"ask{number}", n=number) for number in range(20)]
    edges = " ".join(f"trigger>ask{number}" for number in range(20))
    runs = [lab.queue(node("trigger"), *nodes, edges=edges) for _ in range(3)]
    for run in runs:
        lab.until(run, COMPLETED)
    assert {len(lab.trace(run)) for run in runs} == {21}


def test_work_that_fails_is_given_again_where_the_node_says_so(
    lab: Lab, start: Start, receiver: Receiver
) -> None:
    start(receiver.url)
    run = lab.queue(node("trigger"), action(retry={"maxAttempts": 2, "backoffSeconds": 0}))
    first = order(receiver)
    call(first, "fail", error="out of paper")
    second = order(receiver, 1)
    assert (second["attempt"], second["nodeId"]) == (2, "ask")
    assert second["callback"]["token"] != first["callback"]["token"]
    assert second["stepId"] != first["stepId"]
    assert call(first, "complete", output={}) == "duplicate"
    call(second, "complete", output={"text": "done"})
    assert lab.until(run, COMPLETED).output == {"text": "done"}
    assert lab.trace(run)[1].error == "out of paper"


def test_work_that_fails_for_good_fails_the_run_or_takes_its_error_edge(
    lab: Lab, start: Start, receiver: Receiver
) -> None:
    start(receiver.url)
    retry = {"maxAttempts": 5, "backoffSeconds": 0}
    alone = lab.queue(node("trigger"), action(retry=retry))
    call(order(receiver), "fail", error="out of paper", retryable=False)
    assert lab.until(alone, FAILED).error == "node ask failed: out of paper"
    caught = lab.queue(
        node("trigger"),
        action(retry=retry),
        node("transform", output="{{ steps.ask.error }}"),
        edges="trigger>ask ask>transform:error",
    )
    call(order(receiver, 1), "fail", error="out of paper", retryable=False)
    assert lab.until(caught, COMPLETED).output == {"value": "out of paper"}


def test_a_cancel_stops_the_work_at_once(lab: Lab, start: Start, example: Example) -> None:
    start(example.url)
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
    lab: Lab, start: Start, example: Example
) -> None:
    start(example.url, options={"listen": False, "poll": 0.1})
    run = lab.queue(node("trigger"), action(seconds=600))
    waiting(lab, run)
    lab.cancel(run)
    wait_for(lambda: example.said("stopped", run.id), message=example.logs)


def test_a_cancel_during_the_request_cuts_it_and_tells_the_connector(
    lab: Lab, start: Start, receiver: Receiver
) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def answer(event: dict[str, Any]) -> tuple[int, bytes]:
        if event["type"] == "node.dispatched":
            begun.set()
            let_go.wait(60)
        return 200, b"{}"

    receiver.answer = answer
    try:
        start(receiver.url)
        run = lab.queue(node("trigger"), action())
        assert begun.wait(30)
        assert lab.cancel(run).in_flight == ("ask",)
        (event,) = wait_for(lambda: receiver.of("node.cancelled"))
        assert event["stepId"] == order(receiver)["stepId"]
        lab.until(run, CANCELLED)
        assert lab.statuses(run)[1] == ("ask", CANCELLED)
        assert "cut off while it was under way" in str(lab.trace(run)[1].error)
    finally:
        let_go.set()


def test_a_callback_after_a_cancel_is_kept_and_changes_nothing_else(
    lab: Lab, start: Start, receiver: Receiver
) -> None:
    start(receiver.url)
    run = lab.queue(node("trigger"), action(), node("transform", output=1))
    waiting(lab, run)
    cancelled = lab.cancel(run).run
    assert call(order(receiver), "complete", output={"text": "too late"}) == "late"
    assert lab.get(run) == cancelled
    step = lab.trace(run)[1]
    assert (step.status, step.metadata) == (CANCELLED, step.metadata)
    assert (step.metadata or {})["lateCallback"]["output"] == {"text": "too late"}
    assert len(lab.trace(run)) == 2


def test_a_pause_holds_the_work_and_a_resume_lets_it_go_on(
    lab: Lab, start: Start, example: Example
) -> None:
    start(example.url)
    run = lab.queue(node("trigger"), action(message="done", seconds=2))
    waiting(lab, run)
    request(lab, PAUSE, run)
    wait_for(lambda: example.said("node.paused", run.id), message=example.logs)
    assert not example.said("completed", run.id)
    request(lab, RESUME, run)
    lab.tell()
    assert lab.until(run, COMPLETED).output == {"text": "done"}
    wait_for(lambda: example.said("node.resumed", run.id), message=example.logs)


def test_work_that_ends_while_its_run_is_paused_is_there_after_the_resume(
    lab: Lab, start: Start, receiver: Receiver
) -> None:
    start(receiver.url)
    run = lab.queue(node("trigger"), action())
    waiting(lab, run)
    request(lab, PAUSE, run)
    assert call(order(receiver), "complete", output={"n": 1}) == "recorded"
    assert lab.get(run).status == PAUSED
    request(lab, RESUME, run)
    lab.tell()
    assert lab.until(run, COMPLETED).output == {"n": 1}


def test_silence_fails_the_node_and_calls_the_work_off(
    lab: Lab, start: Start, receiver: Receiver
) -> None:
    start(receiver.url, heartbeat_ms=1_500)
    run = lab.queue(node("trigger"), action())
    assert "has been silent for 1500 ms" in str(lab.until(run, FAILED).error)
    (event,) = wait_for(lambda: receiver.of("node.cancelled"))
    assert "silent" in event["reason"]
    assert call(order(receiver), "complete", output={}) == "late"


def test_heartbeats_keep_work_alive(lab: Lab, start: Start, example: Example) -> None:
    start(example.url, heartbeat_ms=1_500)  # the example has a heartbeat every half a second
    run = lab.queue(node("trigger"), action(message="done", seconds=4))
    assert lab.until(run, COMPLETED).output == {"text": "done"}


def test_heartbeats_count_while_another_branch_holds_the_thread(
    lab: Lab, start: Start, example: Example
) -> None:
    start(example.url, heartbeat_ms=1_500)
    run = lab.queue(
        node("trigger"),
        action(message="done", seconds=6),
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
            " AND wake_at > CAST(:began AS timestamptz) + interval '4 seconds'",
            id=run.id,
            began=began,
        ) or [None]
        return row is not None

    wait_for(passed, message=lambda: str(lab.trace(run)))
    lab.gate.open.set()
    assert lab.until(run, COMPLETED)
    assert lab.statuses(run)[1] == ("ask", COMPLETED)


def test_no_callback_in_time_fails_the_node(lab: Lab, start: Start, receiver: Receiver) -> None:
    start(receiver.url, callback_timeout_ms=1_500)
    run = lab.queue(node("trigger"), action())
    assert "did not call back within 1500 ms" in str(lab.until(run, FAILED).error)
    wait_for(lambda: receiver.of("node.cancelled"))


def test_the_timeout_of_the_node_ends_the_wait(lab: Lab, start: Start, receiver: Receiver) -> None:
    start(receiver.url)
    run = lab.queue(node("trigger"), action(timeoutMs=1_500))
    assert "timed out after 1500 ms" in str(lab.until(run, FAILED).error)
    wait_for(lambda: receiver.of("node.cancelled"))


def test_the_timeout_of_the_run_calls_the_work_off(
    lab: Lab, start: Start, receiver: Receiver
) -> None:
    start(receiver.url)
    run = lab.queue(node("trigger"), action(), timeout_ms=1_500)
    assert "timed out" in str(lab.until(run, FAILED).error)
    wait_for(lambda: receiver.of("node.cancelled"))


def test_a_failure_elsewhere_in_the_run_calls_the_work_off(
    lab: Lab, start: Start, receiver: Receiver
) -> None:
    start(receiver.url)
    run = lab.queue(
        node("trigger"),
        action(),
        node("transform", output="{{ steps.none.output }}"),
        edges="trigger>ask trigger>transform",
    )
    lab.until(run, FAILED)
    wait_for(lambda: receiver.of("node.cancelled"))
    assert dict(lab.statuses(run))["ask"] in (CANCELLED, FAILED)


def test_a_kind_without_connector_fails_its_run_with_the_name_of_the_setting(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("ticket", retry={"maxAttempts": 5}))
    error = str(lab.until(run, FAILED).error)
    assert "METRONOME_CONNECTORS" in error
    assert "[connectors.ticket]" in error
    assert len(lab.trace(run)) == 2


def test_the_token_is_nowhere_in_the_database(lab: Lab, start: Start, receiver: Receiver) -> None:
    start(receiver.url)
    run = lab.queue(node("trigger"), action())
    waiting(lab, run)
    token = order(receiver)["callback"]["token"]
    for table in ("steps", "runs"):
        rows = sql(lab, f"SELECT CAST(row_to_json(t) AS text) FROM {table} t")
        assert all(token not in row[0] for row in rows)
    assert len(token) >= 40
