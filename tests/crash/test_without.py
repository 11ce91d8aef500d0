"""Cancel without an executor, and without notifications; and how soon a node in flight ends."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from benchmarks import checks
from tests.crash.conftest import Crew, post

Wait = Callable[..., Any]


@pytest.fixture
def silent_url() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    listener.close()


def _seconds_to_end(crew: Crew, run_id: str, node: str) -> float:
    """From the cancel to the end of the node, in the database's time."""
    (step,) = (step for step in crew.trace(run_id) if step["node_id"] == node)
    assert step["status"] == "cancelled"
    cancelled = datetime.fromisoformat(crew.run(run_id)["completed_at"])
    return (datetime.fromisoformat(step["completed_at"]) - cancelled).total_seconds()


def test_queued_and_sleeping_runs_are_cancelled_when_no_executor_is_left(
    crew: Crew, wait_for: Wait
) -> None:
    crew.bench.start_api(METRONOME_LISTEN="off")
    plan = crew.plan(("delay", {"seconds": 3600}), crew.function("touch_file"))
    executor = crew.bench.start_executor(METRONOME_LISTEN="off")
    sleeping = post(crew.bench, f"{plan.metronome_id}/runs").body["data"]["id"]
    wait_for(lambda: crew.run(sleeping)["next_attempt_at"] is not None)
    crew.bench.stop(executor)
    queued = post(crew.bench, f"{plan.metronome_id}/runs").body["data"]["id"]

    for run_id in (sleeping, queued):
        answer = post(crew.bench, f"{plan.metronome_id}/runs/{run_id}/cancel")
        assert (answer.status, answer.headers["Cancel-Outcome"]) == (200, "cancelled")
        assert answer.headers["Cancel-In-Flight"] is None
        assert answer.body["data"]["status"] == "cancelled"

    steps = [(step["node_id"], step["status"]) for step in crew.trace(sleeping)]
    assert steps == [("t", "completed"), ("n1", "cancelled")]
    assert crew.trace(queued) == []
    crew.bench.start_executor(METRONOME_LISTEN="off")
    other = crew.queue(crew.plan())
    wait_for(lambda: crew.ended(other))  # the new executor has looked at what is due
    assert crew.ended(sleeping, "cancelled")
    assert crew.ended(queued, "cancelled")
    assert [one for one in checks.traces(crew.bench) if one.count] == []


def test_a_notification_ends_an_http_node_at_once(
    crew: Crew, wait_for: Wait, silent_url: str
) -> None:
    crew.bench.start_api()
    # leases and polls too long to be what tells of the cancel
    crew.bench.start_executor(METRONOME_LEASE_SECONDS="60", METRONOME_POLL_SECONDS="30")
    plan = crew.plan(("http", {"url": silent_url}), crew.function("touch_file"))
    run_id = post(crew.bench, f"{plan.metronome_id}/runs").body["data"]["id"]
    wait_for(lambda: crew.in_flight(run_id, "n1"))

    answer = post(crew.bench, f"{plan.metronome_id}/runs/{run_id}/cancel")

    assert answer.headers["Cancel-In-Flight"] == "n1"
    wait_for(lambda: crew.ended(run_id, "cancelled"), 5)
    assert _seconds_to_end(crew, run_id, "n1") < 1
    assert [step["node_id"] for step in crew.trace(run_id) if step["started_at"]] == ["t", "n1"]
    assert checks.marks(crew.marks) == []


def test_without_listen_polling_ends_an_http_node_and_finds_new_runs(
    crew: Crew, wait_for: Wait, silent_url: str
) -> None:
    crew.bench.start_api(METRONOME_LISTEN="off")
    crew.bench.start_executor(METRONOME_LISTEN="off")
    plan = crew.plan(("http", {"url": silent_url}), crew.function("touch_file"))
    run_id = post(crew.bench, f"{plan.metronome_id}/runs").body["data"]["id"]
    wait_for(lambda: crew.in_flight(run_id, "n1"), 5)

    post(crew.bench, f"{plan.metronome_id}/runs/{run_id}/cancel")

    wait_for(lambda: crew.ended(run_id, "cancelled"), 5)
    assert _seconds_to_end(crew, run_id, "n1") < 2
    assert checks.marks(crew.marks) == []
    assert [one for one in checks.traces(crew.bench) if one.count] == []
