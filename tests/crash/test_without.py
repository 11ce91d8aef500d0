"""Cancel without an executor, and without notifications; what tells a node in flight of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import checks
from tests.crash.conftest import NO_END, Crew, post

Wait = Callable[..., Any]
NO_TIMEOUT = {"timeoutMs": 3_600_000}  # for a node that only the cancel is to end


def _interrupted(crew: Crew, run_id: str) -> bool:
    """Whether the first node was cut off by the cancel, and nothing followed it."""
    _, step = (step for step in crew.trace(run_id) if step["started_at"])
    return (step["node_id"], step["status"]) == ("n1", "cancelled")


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
    crew.bench.start_executor(METRONOME_LEASE_SECONDS=NO_END, METRONOME_POLL_SECONDS="60")
    wait_for(crew.listens)
    plan = crew.plan(("http", {"url": silent_url, **NO_TIMEOUT}), crew.function("touch_file"))
    run_id = post(crew.bench, f"{plan.metronome_id}/runs").body["data"]["id"]
    wait_for(lambda: crew.in_flight(run_id, "n1"))

    answer = post(crew.bench, f"{plan.metronome_id}/runs/{run_id}/cancel")

    assert answer.headers["Cancel-In-Flight"] == "n1"
    wait_for(lambda: crew.ended(run_id, "cancelled"))
    assert _interrupted(crew, run_id)
    assert checks.marks(crew.marks) == []


def test_without_listen_polling_ends_an_http_node_and_finds_new_runs(
    crew: Crew, wait_for: Wait, silent_url: str
) -> None:
    crew.bench.start_api(METRONOME_LISTEN="off")
    # a lease so long that its renewal is not what tells of the cancel
    crew.bench.start_executor(METRONOME_LEASE_SECONDS=NO_END, METRONOME_LISTEN="off")
    plan = crew.plan(("http", {"url": silent_url, **NO_TIMEOUT}), crew.function("touch_file"))
    run_id = post(crew.bench, f"{plan.metronome_id}/runs").body["data"]["id"]
    wait_for(lambda: crew.in_flight(run_id, "n1"))

    post(crew.bench, f"{plan.metronome_id}/runs/{run_id}/cancel")

    wait_for(lambda: crew.ended(run_id, "cancelled"))
    assert _interrupted(crew, run_id)
    assert checks.marks(crew.marks) == []
    assert [one for one in checks.traces(crew.bench) if one.count] == []
