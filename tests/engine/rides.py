"""Runs with steps that ride along, and what a test sees of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from app.domain.outcomes import Outcome
from app.engine.executor import Executor
from app.nodes.base import Context, NodeKind
from app.store.boundary import Boundary, Verdict
from tests.engine.bodies import lose
from tests.engine.conftest import Lab, node
from tests.processes import PATIENCE, wait_for

CHAIN = (
    node("trigger"),
    node("transform", "one", output=1),
    node("transform", "two", output=2),
    node("gate"),
    node("note", "three"),
    node("note", "four"),
    node("end", output="{{ steps.two.output.value }}"),
)
WHOLE = ["trigger", "one", "two", "gate", "three", "four", "end"]


class Pure(NodeKind):
    """Computes as a test says."""

    kind: ClassVar[str] = "pure"
    pure = True

    def __init__(self, act: Callable[[], Outcome]) -> None:
        self.act = act
        self.calls: list[str] = []

    def run(self, context: Context) -> Outcome:
        self.calls.append(context.step_id)
        return self.act()


def watched(
    executor: Executor, before: Callable[[Boundary], object] = lambda boundary: None
) -> list[Boundary]:
    """The boundaries that the executor writes; ``before`` is called ahead of each."""
    write, seen = executor._writer.write, []

    def told(boundary: Boundary) -> Verdict:
        before(boundary)
        seen.append(boundary)
        return write(boundary)

    executor._writer.write = told  # type: ignore[method-assign]
    return seen


def starts(boundaries: list[Boundary]) -> list[list[str]]:
    """The nodes that each of them starts."""
    return [[step.node_id for step in one.starts] for one in boundaries]


def taken_over(lab: Lab, *nodes: dict[str, Any]) -> list[list[str]]:
    """What a second executor starts of a run, after the first was lost at the gate in it."""
    first = lab.start()
    run = lab.queue(*nodes)
    assert lab.gate.begun.wait(PATIENCE)
    seen = watched(lab.start())
    first._claim = lambda *, news: 3600.0  # type: ignore[method-assign]
    lose(lab, run)
    wait_for(lambda: len(lab.gate.calls) == 2)
    lab.gate.open.set()
    lab.until(run, "completed")
    return starts(seen)
