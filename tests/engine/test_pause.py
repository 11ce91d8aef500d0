"""Pause: nothing starts, what is in flight ends, and a resume goes on where the run stood."""

from __future__ import annotations

from app.domain.lifecycle import COMPLETED, PAUSE, PAUSED, RESUME, Action
from app.domain.models import Run
from app.store import transitions
from tests.engine.conftest import ACTOR, Lab, node
from tests.processes import PATIENCE


def take(lab: Lab, action: Action, run: Run) -> None:
    """Take an action as the API does."""
    with lab.db.connect() as connection:
        done = transitions.request(connection, action, ACTOR, run.metronome_id, run.id)
    assert done is not None
    assert done.moved


def test_a_paused_run_goes_on_behind_the_node_that_was_in_flight(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("gate"), node("flaky"), node("end"))
    assert lab.gate.begun.wait(PATIENCE)
    take(lab, PAUSE, run)
    lab.gate.open.set()
    lab.until(run, PAUSED)
    assert lab.statuses(run) == [("trigger", COMPLETED), ("gate", COMPLETED)]

    take(lab, RESUME, run)

    lab.until(run, COMPLETED)
    assert lab.gate.calls == ["gate"]
    assert [one[0] for one in lab.statuses(run)] == ["trigger", "gate", "flaky", "end"]
