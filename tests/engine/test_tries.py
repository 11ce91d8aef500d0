"""How often a node is tried: in each attempt of the run anew, whatever becomes of executors."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import pytest

from app.domain.outcomes import Failed, Outcome
from app.nodes.base import Context, NodeKind
from app.store.leases import EXECUTOR_LOST
from tests.engine.conftest import Lab, node
from tests.engine.operators import is_whole, lose, retry
from tests.processes import PATIENCE, wait_for

THRICE: dict[str, Any] = {"maxAttempts": 3, "backoffSeconds": 0}


class Brittle(NodeKind):
    """Fails, but in the calls (counted from 1) of its config it is in flight until the end."""

    kind: ClassVar[str] = "brittle"

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.freed = threading.Event()

    def run(self, context: Context) -> Outcome:
        self.calls.append(context.attempt)
        if len(self.calls) in context.config["lost"]:
            assert self.freed.wait(PATIENCE)
        return Failed("not yet")


@pytest.mark.parametrize("afresh", [True, False])
def test_a_node_has_its_tries_in_each_attempt_of_the_run(lab: Lab, afresh: bool) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("flaky", failures=99, retry=THRICE), max_attempts=2)
    lab.until(run, "failed")
    assert len(lab.flaky.calls) == 6

    retry(lab, run, afresh=afresh)

    assert lab.until(run, "failed").attempt_count == 3
    assert [one.attempt for one in lab.flaky.calls] == list(range(1, 10))
    is_whole(lab)


@pytest.mark.parametrize("lost", [(1, 2), (2, 3), (2, 4)], ids=str)
def test_executors_that_are_lost_are_no_tries_of_the_node(lab: Lab, lost: tuple[int, ...]) -> None:
    brittle = Brittle()
    lab.kinds["brittle"] = brittle
    try:
        lab.start(threads=4, lease=90.0)
        run = lab.queue(node("trigger"), node("brittle", lost=lost, retry=THRICE))
        for number in lost:
            wait_for(lambda n=number: len(brittle.calls) == n)  # type: ignore[misc]
            lose(lab, run)
        assert lab.until(run, "failed").error == "node brittle failed: not yet"
        assert brittle.calls == [1, 2, 3, 4, 5]
        errors = [one.error for one in lab.trace(run) if one.node_id == "brittle"]
        assert errors == [EXECUTOR_LOST if n in lost else "not yet" for n in brittle.calls]
        assert lab.get(run).attempt_count == 1
    finally:
        brittle.freed.set()
    is_whole(lab)
