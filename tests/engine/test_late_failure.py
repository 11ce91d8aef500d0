"""A node that fails for good after its run was stopped: that was its last attempt all the same."""

from __future__ import annotations

import threading
from typing import ClassVar

import pytest

from app.domain.lifecycle import CANCELLED, FAILED, PAUSE, PAUSED, RESUME
from app.domain.outcomes import Failed, Outcome
from app.nodes.base import Context, NodeKind
from tests.engine.conftest import Lab, node
from tests.engine.test_pause import take
from tests.processes import PATIENCE


class Doomed(NodeKind):
    """Waits until the test lets it go, then fails for good."""

    kind: ClassVar[str] = "doomed"

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self.calls = 0

    def run(self, context: Context) -> Outcome:
        self.calls += 1
        self.begun.set()
        assert self.open.wait(PATIENCE), "the test never let the node go"
        return Failed("for good", retryable=False)


@pytest.fixture
def doomed(lab: Lab) -> Doomed:
    """The one node kind of these tests, known to the lab's executors."""
    kind = Doomed()
    lab.kinds[kind.kind] = kind
    lab.start()
    return kind


def test_a_node_that_failed_while_its_run_was_paused_is_not_tried_again(
    lab: Lab, doomed: Doomed
) -> None:
    run = lab.queue(node("doomed"), node("end"))
    assert doomed.begun.wait(PATIENCE)
    take(lab, PAUSE, run)
    doomed.open.set()
    lab.until(run, PAUSED)

    take(lab, RESUME, run)

    lab.until(run, FAILED)
    assert doomed.calls == 1
    assert lab.statuses(run) == [("doomed", FAILED)]


def test_a_node_that_failed_while_its_run_was_cancelled_was_not_next(
    lab: Lab, doomed: Doomed
) -> None:
    run = lab.queue(node("doomed"), node("end"))
    assert doomed.begun.wait(PATIENCE)
    lab.cancel(run)
    doomed.open.set()
    lab.until(run, CANCELLED)
    assert lab.statuses(run) == [("doomed", FAILED)]
