"""A node that may have run, in a run that was cancelled: it is asked about when that is retried."""

from __future__ import annotations

import pytest

from app.domain.lifecycle import RESUME
from app.domain.models import Run
from app.ids import step_id
from app.store.leases import EXECUTOR_LOST
from tests.engine.conftest import Lab
from tests.engine.operators import is_whole, lose, request, retry, step
from tests.engine.test_doubt import RISKY, in_flight
from tests.processes import wait_for


def asks_once(lab: Lab, run: Run) -> None:
    """The run is in doubt, and goes on when that is confirmed; the node runs once more."""
    wait_for(lambda: lab.get(run).in_doubt, message=lambda: f"{lab.get(run)} {lab.trace(run)}")
    lab.until(run, "paused")
    assert len(lab.risky.keys) == 1, "it did not run again"
    assert step(lab, run, "risky").error == EXECUTOR_LOST
    refused = request(lab, RESUME, run)
    assert (refused.moved, refused.doubtful) == (False, ("risky",))
    lab.risky.open.set()
    assert request(lab, RESUME, run, confirm=True).moved
    lab.until(run, "completed")
    first, second = [one for one in lab.trace(run) if one.node_id == "risky"]
    assert (second.status, second.attempt) == ("completed", 2)
    assert lab.risky.keys == [step_id(run.id, first.seq)] * 2, "the remote side can tell"
    is_whole(lab)


@pytest.mark.parametrize("swept", [True, False])
def test_a_node_that_was_lost_after_a_cancel_is_in_doubt_when_its_run_is_retried(
    lab: Lab, swept: bool
) -> None:
    lab.start(lease=90.0)
    run = in_flight(lab, lab.queue(*RISKY))
    assert lab.cancel(run).in_flight == ("risky",)
    if swept:
        lose(lab, run)
        lab.start(lease=1.0)
        wait_for(lambda: lab.get(run).locked_by is None)
        assert step(lab, run, "risky").error == EXECUTOR_LOST
        retry(lab, run, afresh=False)
    else:
        retry(lab, run, afresh=False)
        lose(lab, run)
    asks_once(lab, run)


@pytest.mark.parametrize("swept", [True, False])
def test_a_retry_from_the_start_has_no_doubts(lab: Lab, swept: bool) -> None:
    lab.start(lease=90.0)
    run = in_flight(lab, lab.queue(*RISKY))
    lab.cancel(run)
    if swept:
        lose(lab, run)
        lab.start(lease=1.0)
        wait_for(lambda: lab.get(run).locked_by is None)
    retry(lab, run, afresh=True)
    if not swept:
        lose(lab, run)
    wait_for(lambda: len(lab.risky.keys) == 2)
    lab.risky.open.set()
    lab.until(run, "completed")
    assert len(set(lab.risky.keys)) == 2, "a new request, not a replay"
    is_whole(lab)


def test_what_was_confirmed_is_not_asked_again_where_the_node_could_not_begin(lab: Lab) -> None:
    first = lab.start(lease=90.0)
    run = in_flight(lab, lab.queue(*RISKY))
    second = lab.start(lease=90.0)
    lose(lab, run)
    wait_for(lambda: lab.get(run).in_doubt)
    lab.risky.open.set()
    lab.stop(first)
    lab.stop(second)
    assert request(lab, RESUME, run, confirm=True).moved
    lab.cancel(run)
    retry(lab, run, afresh=False)

    lab.start()

    lab.until(run, "completed")
    assert len(lab.risky.keys) == 2
    is_whole(lab)
