"""Time that runs out: of a node, of a loop, of the run, in whatever state it is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.domain.models import Run, Step
from app.engine.course import TIMED_OUT
from app.nodes.base import NodeLimits
from tests.engine.bodies import Probe, asleep, inside, loop, lose, outline, sql, told, watch
from tests.engine.conftest import Lab, node
from tests.processes import wait_for

LONG = 3600.0


@pytest.fixture
def probe(lab: Lab) -> Probe:
    """The node that keeps a diary, known to the lab's executors."""
    return watch(lab)


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a service that takes requests and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def only(lab: Lab, run: Run, node_id: str) -> Step:
    """The only step of a node."""
    (step,) = [step for step in lab.trace(run) if step.node_id == node_id]
    return step


def took(step: Step) -> timedelta:
    """How long it was open."""
    assert step.started_at
    assert step.completed_at
    return step.completed_at - step.started_at


def test_a_function_that_heeds_the_signal_ends_at_its_timeout(lab: Lab, functions: None) -> None:
    lab.start(poll=30.0)
    run = lab.queue(
        node("trigger"),
        node("function", functionName="slow", payload={"seconds": 60}, timeoutMs=200),
        node("end"),
    )
    ended = lab.until(run, "failed")
    assert ended.error == (
        "node function failed: timed out after 200 ms: The function gave up: timeout."
    )
    step = only(lab, run, "function")
    assert step.status == "failed"
    assert timedelta(seconds=0.2) <= took(step) < timedelta(seconds=10)


def test_the_result_of_a_deaf_function_counts(lab: Lab, functions: None, tmp_path: Path) -> None:
    lab.start()
    payload = {"gate": str(tmp_path / "gate"), "path": str(tmp_path / "mark")}
    run = lab.queue(
        node("trigger"),
        node("function", functionName="gated", payload=payload, timeoutMs=50),
        node("end", output={"through": True}),
    )
    late = "SELECT 1 FROM steps WHERE node_id = 'function' AND clock_timestamp() - started_at"
    wait_for(lambda: sql(lab, f"{late} > interval '200 milliseconds'"))
    (tmp_path / "gate").touch()
    assert lab.until(run, "completed").output == {"through": True}
    assert took(only(lab, run, "function")) > timedelta(milliseconds=200)


def test_a_request_without_an_answer_ends_at_its_timeout(lab: Lab, silent: str) -> None:
    lab.start(limits=NodeLimits(http_allowed_private=("127.0.0.1",)))
    run = lab.queue(node("trigger"), node("http", url=silent, timeoutMs=300), node("end"))
    error = lab.until(run, "failed").error
    assert error
    assert "300 ms" in error
    assert timedelta(seconds=0.3) <= took(only(lab, run, "http")) < timedelta(seconds=10)


@pytest.mark.parametrize("timeout", [300, 1_300])
def test_a_sleep_ends_at_its_timeout(lab: Lab, timeout: int) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("delay", seconds=LONG, timeoutMs=timeout), node("end"))
    assert lab.until(run, "failed").error == f"node delay failed: timed out after {timeout} ms"
    step = only(lab, run, "delay")
    assert timedelta(milliseconds=timeout) <= took(step) < timedelta(seconds=10)


def test_a_sleep_that_is_shorter_than_its_timeout_ends_well(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("delay", "short", seconds=0.1, timeoutMs=60_000),
        node("delay", "long", seconds=1.2, timeoutMs=60_000),
    )
    lab.until(run, "completed")


def test_a_timeout_is_tried_again_and_then_takes_the_error_edge(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node(
            "probe",
            "slow",
            holdsAt=[],
            heeds=True,
            timeoutMs=100,
            retry={"maxAttempts": 2, "backoffSeconds": 0.05},
        ),
        node("probe", "mend", output={"because": "{{ steps.slow.error }}"}),
        edges="trigger>slow slow>mend:error",
    )
    assert lab.until(run, "completed").output == {
        "because": "timed out after 100 ms: stopped: timeout"
    }
    assert outline(lab, run)[1:] == ["slow failed", "slow failed", "mend completed"]


def test_a_node_that_hears_of_a_cancel_has_not_timed_out(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"), node("probe", holdsAt=[], heeds=True, timeoutMs=60_000), node("end")
    )
    assert probe.begun.wait(10)
    lab.cancel(run)
    lab.until(run, "cancelled")
    assert only(lab, run, "probe").error == "interrupted: stopped: cancelled"


@pytest.mark.parametrize("timeout", [400, 1_500])
def test_a_loop_ends_at_its_timeout_while_a_node_of_it_sleeps(
    lab: Lab, probe: Probe, timeout: int
) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        loop(iterations=3, timeoutMs=timeout),
        *inside(
            "loop",
            node("probe", "a"),
            node("delay", "nap", seconds="{{ 3600 if loop.index == 1 else 0 }}"),
        ),
        node("probe", "behind"),
        edges="trigger>loop loop>behind a>nap",
    )
    assert lab.until(run, "failed").error == f"node loop failed: timed out after {timeout} ms"
    assert outline(lab, run)[1:] == [
        "loop failed",
        "a/0 completed",
        "nap/0 completed",
        "a/1 completed",
        "nap/1 cancelled",
    ]
    assert only(lab, run, "loop").error == f"timed out after {timeout} ms"
    spent = took(only(lab, run, "loop"))
    assert timedelta(milliseconds=timeout) <= spent < timedelta(seconds=10)


def in_a_loop_of_a_loop(lab: Lab, *, outer: int | None, inner: int | None, edges: str = "") -> Run:
    """A run whose node waits in the second iteration of both loops, which have these timeouts."""
    return lab.queue(
        node("trigger"),
        loop("outer", iterations=2, timeoutMs=outer),
        *inside("outer", loop("inner", iterations=2, timeoutMs=inner), node("probe", "mend")),
        *inside("inner", node("probe", "slow", holdsAt=[1, 1], heeds=True)),
        node("probe", "behind", output={"because": "{{ steps.outer.error }}"}),
        edges=f"trigger>outer outer>behind:error {edges}",
    )


def test_a_loop_out_of_time_stops_the_node_in_flight(lab: Lab, probe: Probe) -> None:
    lab.start(poll=30.0)
    run = in_a_loop_of_a_loop(lab, outer=400, inner=None)
    assert lab.until(run, "completed").output == {"because": "timed out after 400 ms"}
    assert outline(lab, run)[-4:] == [
        "slow/1/0 completed",
        "slow/1/1 failed",
        "mend/1 skipped",
        "behind completed",
    ] or outline(lab, run)[-3:] == [
        "slow/1/0 completed",
        "slow/1/1 failed",
        "behind completed",
    ]
    slow = lab.trace(run)[-2]
    assert slow.error == "timed out with the loop around it: stopped: timeout"


def test_an_inner_loop_out_of_time_takes_its_own_error_edge(lab: Lab, probe: Probe) -> None:
    lab.start(poll=30.0)
    run = in_a_loop_of_a_loop(lab, outer=60_000, inner=300, edges="inner>mend:error")
    lab.until(run, "completed")
    assert told(lab, run, "inner") == [((0,), "completed"), ((1,), "failed")]
    assert told(lab, run, "outer") == [((), "completed")]
    assert probe.paths("mend") == [(1,)]
    assert told(lab, run, "behind") == [((), "skipped")]


def test_the_timeout_of_a_node_in_a_loop_is_its_own(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        loop(iterations=2, timeoutMs=60_000),
        *inside("loop", node("probe", "slow", holdsAt=[1], heeds=True, timeoutMs=100)),
        edges="trigger>loop",
    )
    assert lab.until(run, "failed").error == (
        "node slow failed: timed out after 100 ms: stopped: timeout"
    )


def test_the_time_of_a_loop_counts_from_its_start_over_all_claims(lab: Lab, probe: Probe) -> None:
    first = lab.start()
    run = lab.queue(
        node("trigger"),
        loop(iterations=2, timeoutMs=2_500),
        *inside("loop", node("delay", "nap", seconds=1.8)),
        edges="trigger>loop",
    )
    asleep(lab, run)
    lab.stop(first)
    lab.start()
    assert lab.until(run, "failed").error == "node loop failed: timed out after 2500 ms"
    assert told(lab, run, "nap") == [((0,), "completed"), ((1,), "cancelled")]
    assert took(only(lab, run, "loop")) < timedelta(seconds=10)


@pytest.mark.parametrize("attempts", [1, 9])
def test_the_deadline_of_the_run_ends_a_loop_that_sleeps(
    lab: Lab, probe: Probe, attempts: int
) -> None:
    lab.start(poll=30.0)
    run = lab.queue(
        node("trigger"),
        loop(iterations=2, retry={"maxAttempts": 9, "backoffSeconds": 0}),
        *inside("loop", node("probe", "a"), node("delay", "nap", seconds=LONG)),
        node("probe", "mend"),
        edges="trigger>loop loop>mend:error a>nap",
        timeout_ms=1_400,
        max_attempts=attempts,
    )
    asleep(lab, run)
    ended = lab.until(run, "failed")
    assert (ended.error, ended.attempt_count) == (TIMED_OUT, 1)
    assert outline(lab, run)[1:] == ["loop cancelled", "a/0 completed", "nap/0 cancelled"]
    assert probe.paths("mend") == []


def test_the_deadline_of_the_run_ends_a_loop_between_two_nodes(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        loop(loopType="until", rule="false", maxIterations=100_000),
        *inside("loop", node("probe", "a")),
        edges="trigger>loop",
        timeout_ms=500,
    )
    ended = lab.until(run, "failed")
    assert ended.error == TIMED_OUT
    late = [s for s in lab.trace(run) if s.started_at and s.started_at > _deadline(lab)]
    assert late == []
    assert {s.status for s in lab.trace(run)[:-1]} <= {"completed", "cancelled"}


def _deadline(lab: Lab) -> Any:
    return sql(lab, "SELECT deadline_at FROM runs")[0][0]


def test_the_deadline_of_the_run_stops_a_node_in_flight_in_a_loop(lab: Lab, probe: Probe) -> None:
    lab.start(poll=30.0)
    run = lab.queue(
        node("trigger"),
        loop(iterations=2, timeoutMs=60_000),
        *inside("loop", node("probe", "slow", holdsAt=[1], heeds=True, timeoutMs=60_000)),
        edges="trigger>loop",
        timeout_ms=400,
    )
    assert lab.until(run, "failed").error == TIMED_OUT
    slow = lab.trace(run)[-1]
    assert (slow.status, slow.error) == ("failed", "timed out: stopped: timeout")
    assert took(slow) < timedelta(seconds=10)


def test_a_nap_ends_with_the_run(lab: Lab) -> None:
    lab.start(poll=30.0)
    run = lab.queue(node("trigger"), node("delay", seconds=0.99), node("end"), timeout_ms=300)
    assert lab.until(run, "failed").error == TIMED_OUT
    assert outline(lab, run)[1:] == ["delay cancelled"]
    assert took(only(lab, run, "delay")) < timedelta(seconds=0.95)


def test_the_deadline_counts_on_after_a_lost_executor(lab: Lab, probe: Probe) -> None:
    lab.start(threads=1)
    run = lab.queue(
        node("trigger"), node("probe", holdsAt=[], heeds=True), node("end"), timeout_ms=1_500
    )
    assert probe.begun.wait(10)
    probe.begun.clear()
    lab.start(threads=1)
    lose(lab, run)
    assert probe.begun.wait(10)
    assert lab.until(run, "failed").error == TIMED_OUT
    assert {s.status for s in lab.trace(run)} == {"completed", "failed"}
