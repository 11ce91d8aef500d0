"""Where a node that only computes has a boundary of its own, or a boundary has enough of them."""

from __future__ import annotations

import time

import pytest

from app.domain.outcomes import Done, Failed, Outcome
from app.engine import pending, riding
from app.ids import step_id
from tests.engine.bodies import loop, round_and_end
from tests.engine.conftest import Lab, node
from tests.engine.rides import CHAIN, Pure, starts, taken_over, watched
from tests.processes import wait_for


@pytest.mark.usefixtures("unhurried")
def test_nothing_rides_in_a_loop(lab: Lab) -> None:
    """Its turns and its end follow from steps that must be in the trace."""
    seen = watched(lab.start())
    run = round_and_end(
        lab,
        loop(iterations=2),
        node("transform", "one", output=1),
        node("note", "two"),
        edges="one>two",
    )
    lab.until(run, "completed")
    each = [["one"], ["two"]]
    assert starts(seen) == [["trigger", "loop"], *each, *each, [], ["end"], []]


@pytest.mark.usefixtures("unhurried")
def test_nothing_rides_beside_what_waits(lab: Lab) -> None:
    seen = watched(lab.start())
    lab.queue(
        node("trigger"),
        node("delay", seconds=3600),
        node("note", "one"),
        node("note", "two"),
        edges="trigger>delay trigger>one one>two",
    )
    wait_for(lambda: seen and seen[-1].move is not None)
    assert starts(seen) == [["trigger", "delay"], ["one"], ["two"], []]


@pytest.mark.usefixtures("unhurried")
def test_nothing_rides_after_an_executor_was_lost(lab: Lab) -> None:
    """What ended it may be a node that computes: the trace must say which."""
    assert taken_over(lab, *CHAIN) == [["gate"], ["three"], ["four"], ["end"], []]


@pytest.mark.usefixtures("unhurried")
def test_a_boundary_carries_only_so_much(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "RIDES", 3)
    seen = watched(lab.start())
    run = lab.queue(node("trigger"), *(node("note", f"n{number}") for number in range(9)))
    lab.until(run, "completed")
    # three that ride and one that starts; behind that, again
    assert [len(one.starts) for one in seen] == [4, 4, 2]
    assert len(lab.trace(run)) == 10


@pytest.mark.usefixtures("unhurried")
def test_large_outputs_are_written_sooner(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "RIDE_BYTES", 5_000)
    seen = watched(lab.start())
    run = lab.queue(
        node("trigger"), *(node("transform", f"t{number}", output="x" * 3_000) for number in "abcd")
    )
    lab.until(run, "completed")
    assert starts(seen) == [["trigger", "ta", "tb", "tc"], ["td"]]


@pytest.mark.usefixtures("unhurried")
def test_nothing_rides_for_long(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "RIDE_SECONDS", 0.0)
    seen = watched(lab.start())
    run = lab.queue(node("trigger"), *(node("note", f"n{number}") for number in range(3)))
    lab.until(run, "completed")
    assert starts(seen) == [["trigger", "n0"], ["n1", "n2"], []]


def test_what_is_slow_takes_the_usual_way_and_is_known_then(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "RIDE_SECONDS", 3600.0)

    def compute() -> Outcome:
        until = time.thread_time() + 2 * riding.QUICK_SECONDS
        while time.thread_time() < until:
            pass
        return Done({})

    slow = lab.kinds["pure"] = Pure(compute)
    lab.start()
    workflow = lab.workflow("slow", node("trigger"), node("pure"), node("end"))
    for calls in (2, 3):
        run = lab.begin(workflow)
        lab.until(run, "completed")
        assert len(slow.calls) == calls
        step = lab.trace(run)[1]
        assert step.started_at is not None
        assert step.completed_at is not None
        assert step.completed_at > step.started_at


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("raises", [False, True])
def test_a_node_that_fails_takes_the_usual_way(lab: Lab, raises: bool) -> None:
    def fail() -> Outcome:
        if raises:
            raise RuntimeError("out of the blue")
        return Failed("it can't be", retryable=False)

    kind = lab.kinds["pure"] = Pure(fail)
    seen = watched(lab.start())
    run = lab.queue(node("trigger"), node("pure"), node("end"))
    failed = lab.until(run, "failed")
    assert ("out of the blue" if raises else "it can't be") in (failed.error or "")
    assert lab.statuses(run) == [("trigger", "completed"), ("pure", "failed")]
    assert starts(seen)[0] == ["trigger", "pure"]
    assert kind.calls == 2 * [step_id(run.id, 2)], "it was told the id of its step"


def test_a_value_that_cant_be_kept_fails_the_node(lab: Lab) -> None:
    lab.kinds["pure"] = Pure(lambda: Done({"text": "\0"}))
    lab.start()
    run = lab.queue(node("trigger"), node("pure"), node("end"))
    lab.until(run, "failed")
    assert lab.statuses(run) == [("trigger", "completed"), ("pure", "failed")]
