"""A node that is unsafe to replay and may have run: a person is asked, whatever else happens."""

from __future__ import annotations

import pytest

from app.domain.lifecycle import PAUSE, RESUME
from app.domain.models import Run
from app.engine.writer import GaveUp
from app.ids import step_id
from app.store.boundary import Boundary, Verdict
from app.store.leases import EXECUTOR_LOST, EXECUTOR_STOPPED, IN_DOUBT
from tests.engine.conftest import Lab, node
from tests.engine.operators import (
    child,
    decide,
    is_whole,
    lose,
    request,
    retry,
    sql,
    step,
    waits,
)
from tests.processes import wait_for

RISKY = (node("trigger"), node("risky"), node("end"))
HEEDING = (node("trigger"), node("risky", heeds=True), node("end"))


def in_flight(lab: Lab, run: Run) -> Run:
    """The run, with its unsafe node in flight."""
    assert lab.risky.begun.wait(10)
    assert step(lab, run, "risky").status == "running"
    return run


def lost(lab: Lab) -> Run:
    """A run in doubt: its executor was lost with the unsafe node in flight."""
    lab.start(lease=90.0)
    run = in_flight(lab, lab.queue(*RISKY))
    lab.start()
    lose(lab, run)
    return is_in_doubt(lab, run, EXECUTOR_LOST)


def is_in_doubt(lab: Lab, run: Run, error: str) -> Run:
    """The run, once it is paused in doubt over the node ``risky`` whose step has ended so."""
    wait_for(lambda: lab.get(run).in_doubt, message=lambda: f"{lab.get(run)} {lab.trace(run)}")
    doubtful = lab.until(run, "paused")
    assert doubtful.in_doubt
    assert doubtful.error == IN_DOUBT.format(node="risky")
    ended = step(lab, run, "risky")
    assert (ended.status, ended.error, ended.attempt) == ("failed", error, 1)
    assert ended.completed_at
    return doubtful


def goes_on_when_confirmed(lab: Lab, run: Run) -> None:
    """A resume is refused without the confirmation; with it, the node runs as a replay."""
    refused = request(lab, RESUME, run)
    assert (refused.moved, refused.run.status) == (False, "paused")
    assert refused.doubtful == ("risky",)
    assert len(lab.risky.keys) == 1, "it did not run again"
    lab.risky.open.set()

    resumed = request(lab, RESUME, run, confirm=True)

    assert (resumed.moved, resumed.run.status, resumed.run.in_doubt) == (True, "queued", False)
    ended = lab.until(run, "completed")
    assert ended.error is None
    first, second = [one for one in lab.trace(run) if one.node_id == "risky"]
    assert (first.status, second.status, second.attempt) == ("failed", "completed", 2)
    assert lab.risky.keys == [step_id(run.id, first.seq)] * 2, "the remote side can tell"
    assert second.metadata is not None
    assert second.metadata["replayOf"] == step_id(run.id, first.seq)
    is_whole(lab)


# -- how it comes about


def test_a_lost_executor_puts_a_run_in_doubt_and_a_confirmation_replays_the_node(
    lab: Lab,
) -> None:
    goes_on_when_confirmed(lab, lost(lab))


def test_a_safe_node_of_a_lost_executor_just_runs_again(lab: Lab) -> None:
    lab.start(lease=90.0)
    run = lab.queue(node("trigger"), node("gate"), node("end"))
    assert lab.gate.begun.wait(10)
    lab.start()
    lose(lab, run)
    wait_for(lambda: len(lab.gate.calls) == 2)
    lab.gate.open.set()
    lab.until(run, "completed")
    attempts = [(one.status, one.attempt) for one in lab.trace(run) if one.node_id == "gate"]
    assert attempts == [("failed", 1), ("completed", 2)]


def test_a_node_that_a_shutdown_interrupts_is_in_doubt(lab: Lab) -> None:
    executor = lab.start(grace=0.2)
    run = in_flight(lab, lab.queue(*HEEDING))
    lab.stop(executor)
    is_in_doubt(lab, run, EXECUTOR_STOPPED)
    lab.start()
    goes_on_when_confirmed(lab, run)


def test_a_node_that_a_shutdown_leaves_behind_is_in_doubt(lab: Lab) -> None:
    executor = lab.start(grace=0.2)
    run = in_flight(lab, lab.queue(*RISKY))
    lab.stop(executor)
    is_in_doubt(lab, run, EXECUTOR_STOPPED)
    lab.start()
    goes_on_when_confirmed(lab, run)


def test_a_shutdown_that_lets_the_node_end_leaves_no_doubt(lab: Lab) -> None:
    executor = lab.start(grace=10.0)
    run = in_flight(lab, lab.queue(*RISKY))
    executor.drain()
    lab.risky.open.set()
    lab.stop(executor)
    free = lab.get(run)
    assert (free.status, free.in_doubt) == ("running", False)
    assert lab.statuses(run) == [("trigger", "completed"), ("risky", "completed")]
    lab.start()
    lab.until(run, "completed")
    assert len(lab.risky.keys) == 1


def test_an_executor_that_is_lost_after_a_pause_leaves_a_doubt(lab: Lab) -> None:
    lab.start(lease=90.0)
    run = in_flight(lab, lab.queue(*RISKY))
    assert request(lab, PAUSE, run).in_flight == ("risky",)
    lose(lab, run)
    lab.start(lease=1.0)  # it sweeps
    is_in_doubt(lab, run, EXECUTOR_LOST)
    goes_on_when_confirmed(lab, run)


def test_an_executor_that_is_lost_after_a_pause_and_a_resume_leaves_a_doubt(lab: Lab) -> None:
    lab.start(lease=90.0)
    run = in_flight(lab, lab.queue(*RISKY))
    request(lab, PAUSE, run)
    assert request(lab, RESUME, run).moved
    lab.start()
    lose(lab, run)
    is_in_doubt(lab, run, EXECUTOR_LOST)
    goes_on_when_confirmed(lab, run)


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("nodes", [HEEDING, RISKY], ids=["interrupted", "left behind"])
def test_a_shutdown_after_a_pause_leaves_a_doubt(
    lab: Lab, nodes: tuple[dict[str, object], ...], resumed: bool
) -> None:
    executor = lab.start(grace=0.2, lease=90.0)
    run = in_flight(lab, lab.queue(*nodes))
    request(lab, PAUSE, run)
    if resumed:
        request(lab, RESUME, run)
    lab.stop(executor)
    is_in_doubt(lab, run, EXECUTOR_STOPPED)
    lab.start()
    goes_on_when_confirmed(lab, run)


def test_a_pause_at_the_moment_of_the_doubt_does_not_hide_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heir knows of the doubt, but has not said so when the pause comes."""
    lab.start(lease=90.0, threads=1)
    run = in_flight(lab, lab.queue(*RISKY))
    heir = lab.start()
    write = heir._writer.write

    def paused(boundary: Boundary) -> Verdict:
        if boundary.move and boundary.move.action == "doubt":
            assert request(lab, PAUSE, run).moved
        return write(boundary)

    monkeypatch.setattr(heir._writer, "write", paused)
    lose(lab, run)
    is_in_doubt(lab, run, EXECUTOR_LOST)
    goes_on_when_confirmed(lab, run)


def test_a_cancel_at_the_moment_of_the_doubt_ends_the_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.start(lease=90.0, threads=1)
    run = in_flight(lab, lab.queue(*RISKY))
    heir = lab.start()
    write = heir._writer.write

    def cancelled(boundary: Boundary) -> Verdict:
        if boundary.move and boundary.move.action == "doubt":
            assert lab.cancel(run).moved
        return write(boundary)

    monkeypatch.setattr(heir._writer, "write", cancelled)
    lose(lab, run)
    ended = lab.until(run, "cancelled")
    assert (ended.in_doubt, ended.error) == (False, None)
    risky = [(one.status, one.error) for one in lab.trace(run) if one.started_at][-1]
    assert risky == ("failed", EXECUTOR_LOST)
    is_whole(lab)


def test_an_heir_that_is_lost_before_it_could_say_so_leaves_the_doubt_to_the_next(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.start(lease=90.0, threads=1)
    run = in_flight(lab, lab.queue(*RISKY))
    heir = lab.start(lease=90.0, threads=1)
    write = heir._writer.write
    gone: list[Boundary] = []

    def lose_first(boundary: Boundary) -> Verdict:
        if not gone:
            gone.append(boundary)
            raise GaveUp
        return write(boundary)

    monkeypatch.setattr(heir._writer, "write", lose_first)
    lose(lab, run)
    wait_for(lambda: gone)
    lose(lab, run)
    is_in_doubt(lab, run, EXECUTOR_LOST)
    goes_on_when_confirmed(lab, run)


# -- what becomes of it


def test_a_run_in_doubt_is_cancelled_at_once(lab: Lab) -> None:
    run = lost(lab)
    before = lab.trace(run)
    cancelled = lab.cancel(run)
    assert (cancelled.moved, cancelled.in_flight) == (True, ())
    assert (cancelled.run.in_doubt, cancelled.run.error) == (False, None)
    assert lab.trace(run) == before
    is_whole(lab)


@pytest.mark.parametrize("afresh", [True, False])
def test_a_run_in_doubt_may_be_retried(lab: Lab, afresh: bool) -> None:
    run = lost(lab)
    lab.risky.open.set()
    retry(lab, run, afresh=afresh)
    ended = lab.until(run, "completed")
    assert (ended.error, ended.in_doubt) == (None, False)
    risky = [(one.status, one.attempt) for one in lab.trace(run) if one.node_id == "risky"]
    assert risky == [("failed", 1), ("completed", 2)]
    same = lab.risky.keys[0] == lab.risky.keys[1]
    assert same == (not afresh), "from the start it is a new request, not a replay"
    is_whole(lab)


def test_each_lost_replay_asks_again_and_a_confirmation_is_always_honoured(lab: Lab) -> None:
    """A node that ends its executors is no poison where a person confirms each replay."""
    run = lost(lab)
    lab.start(threads=16, lease=90.0)
    for number in range(2, 8):
        assert request(lab, RESUME, run, confirm=True).moved
        wait_for(lambda n=number: len(lab.risky.keys) == n)  # type: ignore[misc]
        lose(lab, run)
        wait_for(lambda: lab.get(run).in_doubt)
        lab.until(run, "paused")
    assert len(set(lab.risky.keys)) == 1
    lab.cancel(run)
    is_whole(lab)


def test_what_waits_beside_the_doubt_is_kept_and_goes_on_with_it(lab: Lab) -> None:
    lab.start(lease=90.0)
    nested = lab.workflow("nested", node("trigger"), node("end", output={"n": 1}))
    run = in_flight(
        lab,
        lab.queue(
            node("trigger"),
            node("approval"),
            node("metronome", "call", workflowId=nested),
            node("risky"),
            node("end"),
            edges="trigger>approval trigger>call trigger>risky approval>end call>end risky>end",
        ),
    )
    lab.until(child(lab, run), "completed")
    lab.start()
    lose(lab, run)
    is_in_doubt(lab, run, EXECUTOR_LOST)
    assert step(lab, run, "approval").status == "waiting_approval"
    assert step(lab, run, "call").status == "running"
    assert decide(lab, run, approved=True).outcome == "decided"
    goes_on_when_confirmed(lab, run)
    assert {one.attempt for one in lab.trace(run) if one.node_id != "risky"} == {1}


def test_a_doubt_in_a_nested_run_keeps_the_run_above_waiting(lab: Lab) -> None:
    lab.start(lease=90.0)
    below = lab.workflow("below", *RISKY)
    run = lab.queue(node("trigger"), node("metronome", "call", workflowId=below), node("end"))
    nested = in_flight(lab, child(lab, run))
    lab.start()
    lose(lab, nested)
    is_in_doubt(lab, nested, EXECUTOR_LOST)
    assert waits(lab, run).status == "running"
    goes_on_when_confirmed(lab, nested)
    lab.until(run, "completed")
    is_whole(lab)


def test_a_pause_and_resume_of_the_run_above_don_t_settle_the_doubt_below(lab: Lab) -> None:
    lab.start(lease=90.0)
    below = lab.workflow("below", *RISKY)
    run = lab.queue(node("trigger"), node("metronome", "call", workflowId=below), node("end"))
    nested = in_flight(lab, child(lab, run))
    waits(lab, run)
    request(lab, PAUSE, run)
    lose(lab, nested)
    lab.start(lease=1.0)
    is_in_doubt(lab, nested, EXECUTOR_LOST)
    assert request(lab, RESUME, run).moved
    waits(lab, run)
    assert lab.get(nested).in_doubt
    goes_on_when_confirmed(lab, nested)
    lab.until(run, "completed")
    is_whole(lab)


def test_a_cancel_above_ends_a_doubt_below(lab: Lab) -> None:
    lab.start(lease=90.0)
    below = lab.workflow("below", *RISKY)
    run = lab.queue(node("trigger"), node("metronome", "call", workflowId=below), node("end"))
    nested = in_flight(lab, child(lab, run))
    lab.start()
    lose(lab, nested)
    is_in_doubt(lab, nested, EXECUTOR_LOST)
    lab.cancel(run)
    assert (lab.get(nested).status, lab.get(nested).in_doubt) == ("cancelled", False)
    is_whole(lab)


def test_a_doubt_inside_of_a_loop_is_replayed_in_its_iteration(lab: Lab) -> None:
    lab.start(lease=90.0)
    run = in_flight(
        lab,
        lab.queue(
            node("trigger"),
            node("loop", loopType="fixed_count", count=2, iterations=2),
            {**node("risky"), "parentId": "loop"},
            node("end"),
            edges="trigger>loop loop>end",
        ),
    )
    lab.start()
    lose(lab, run)
    is_in_doubt(lab, run, EXECUTOR_LOST)
    lab.risky.open.set()
    assert request(lab, RESUME, run, confirm=True).moved
    lab.until(run, "completed")
    risky = [one for one in lab.trace(run) if one.node_id == "risky"]
    assert [(one.iteration, one.status) for one in risky] == [
        (0, "failed"),
        (0, "completed"),
        (1, "completed"),
    ]
    first, again, next_one = lab.risky.keys
    assert first == again != next_one
    is_whole(lab)


@pytest.mark.parametrize("kind", ["gate", "risky"])
def test_a_step_that_was_lost_behind_a_retry_from_the_start_is_closed(lab: Lab, kind: str) -> None:
    """Cancelled with a node in flight, retried while that drains, and then the executor is lost."""
    lab.start(lease=90.0)
    run = lab.queue(node("trigger"), node(kind, "work"), node("end"))
    held = lab.kinds[kind]
    assert held.begun.wait(10)  # type: ignore[attr-defined]
    lab.cancel(run)
    retry(lab, run, afresh=True)
    lab.start()
    lose(lab, run)
    wait_for(lambda: len([one for one in lab.trace(run) if one.node_id == "work"]) == 2)
    held.open.set()  # type: ignore[attr-defined]
    lab.until(run, "completed")
    work = [one for one in lab.trace(run) if one.node_id == "work"]
    assert [(one.status, one.attempt) for one in work] == [("failed", 1), ("completed", 2)]
    assert work[0].error == EXECUTOR_LOST
    assert sql(lab, "SELECT 1 FROM steps WHERE completed_at IS NULL") == []
    is_whole(lab)
