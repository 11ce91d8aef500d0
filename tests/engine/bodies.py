"""What the tests of loops are made of: a node that keeps a diary, and ways to read a trace."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy import text

from app.domain.expressions import render
from app.domain.models import Run, Step
from app.domain.outcomes import Done, Failed, Interrupted, Outcome
from app.nodes.base import Context, NodeKind
from app.services import transitions
from tests.engine.conftest import ACTOR, Lab, node
from tests.processes import wait_for

ITERATION = "{{ loop.index }}"

Path = tuple[int, ...]  # the indexes of the loops around a node, outermost first


class Probe(NodeKind):
    """Writes down where it was called, and answers its ``output``.

    With ``failsAt`` (a path as a list) it fails there as often as ``failures`` says (once), with
    ``holdsAt`` it waits there until the test opens it: ``heeds`` lets it give up before that.
    """

    kind: ClassVar[str] = "probe"
    bound = ("output",)

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self.calls: list[tuple[str, Path]] = []

    def bind(self, config: Mapping[str, Any], scope: Mapping[str, Any]) -> dict[str, Any]:
        return {"output": render(config.get("output", {}), scope)}

    def run(self, context: Context) -> Outcome:
        config, path = context.config, _path(context.scope.get("loop"))
        self.calls.append((context.node_id, path))
        if config.get("holdsAt") == list(path):
            self.begun.set()
            while not self.open.wait(0.01):
                if config.get("heeds") and context.stop.is_set():
                    return Interrupted(f"stopped: {context.stop.reason}")
        times = config.get("failures", 1) if config.get("failsAt") == list(path) else 0
        if self.calls.count((context.node_id, path)) <= times:
            return Failed("told to", retryable=config.get("retryable", True))
        return Done(dict(context.input["output"]))

    def paths(self, node_id: str) -> list[Path]:
        """Where a node was called, in order."""
        return [path for node, path in self.calls if node == node_id]


def _path(loop: Mapping[str, Any] | None) -> Path:
    return () if loop is None else (*_path(loop["outer"]), loop["index"])


def watch(lab: Lab) -> Probe:
    """A probe that the lab's executors know."""
    lab.kinds[Probe.kind] = probe = Probe()
    return probe


def loop(id: str = "loop", **config: Any) -> dict[str, Any]:
    """A loop by count, or of the type that its config names."""
    return node("loop", id, **{"loopType": "fixed_count", **config})


def inside(parent: str, *nodes: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes as nodes inside of the loop ``parent``."""
    return [{**node, "parentId": parent} for node in nodes]


def round_and_end(
    lab: Lab, one: dict[str, Any], *body: dict[str, Any], edges: str = "", **wanted: Any
) -> Run:
    """A run of a loop with this body, and an end behind it."""
    return lab.queue(
        node("trigger"),
        one,
        *inside(one["id"], *body),
        node("end"),
        edges=f"trigger>{one['id']} {one['id']}>end {edges}",
        input={"n": 3, "list": ["a", "b", "c", "d", "e"]},
        **wanted,
    )


def answer(lab: Lab, run: Run) -> dict[str, Any]:
    """What the loop answered, which the end passes on."""
    output = lab.until(run, "completed").output
    assert output is not None
    return output


def three(lab: Lab, *, holds_at: int = 1, count: int = 3, **wanted: Any) -> Run:
    """A run whose loop has three nodes, of which the second waits in one iteration."""
    return round_and_end(
        lab,
        loop(iterations=count),
        node("probe", "a", output={"i": ITERATION}),
        node("probe", "b", holdsAt=[holds_at]),
        node("probe", "c", output={"i": ITERATION}),
        edges="a>b b>c",
        **wanted,
    )


def steps_of(lab: Lab, run: Run, node_id: str) -> list[Step]:
    """The steps of one node, in order."""
    return [step for step in lab.trace(run) if step.node_id == node_id]


def nested(lab: Lab, **config: Any) -> Run:
    """A run of two iterations of two iterations of ``in``, with a node ``after`` the inner loop."""
    return lab.queue(
        node("trigger"),
        loop("outer", iterations=2),
        *inside(
            "outer", loop("inner", iterations=2), node("probe", "after", output={"i": ITERATION})
        ),
        *inside(
            "inner",
            node("probe", "in", output={"at": "{{ loop.outer.index }}/" + ITERATION}, **config),
        ),
        node("end", output={"outer": "{{ inbound.outer.outputs }}"}),
        edges="trigger>outer outer>end inner>after",
    )


def told(lab: Lab, run: Run, node_id: str) -> list[tuple[Path, str]]:
    """Iterations and status of each step of a node, in order."""
    return [
        (tuple(one.iteration for one in step.loops), step.status)
        for step in lab.trace(run)
        if step.node_id == node_id
    ]


def outline(lab: Lab, run: Run) -> list[str]:
    """The whole trace in words: ``node/1/0 completed`` is in iteration 0 of a loop's 1."""
    return [
        "/".join([step.node_id, *(str(one.iteration) for one in step.loops)]) + f" {step.status}"
        for step in lab.trace(run)
    ]


def sql(lab: Lab, statement: str, **values: Any) -> Any:
    """What one statement answers, where it answers anything."""
    with lab.db.connect() as connection:
        found = connection.execute(text(statement), values)
        return found.all() if found.returns_rows else None


def lose(lab: Lab, run: Run) -> None:
    """The lease of the run ends, as if the process that holds it were gone."""
    ended = "UPDATE runs SET due_at = clock_timestamp() - interval '1 second' WHERE id = :id"
    sql(lab, ended, id=run.id)
    lab.tell()


def retry(lab: Lab, run: Run) -> None:
    """Queue the run once more, behind its finished steps."""
    transitions.retry(lab.db, ACTOR, run.metronome_id, run.id, afresh=False, free=lab.free)
    lab.tell()


def twice(lab: Lab, run: Run) -> list[tuple[str, Path]]:
    """Nodes that ended well more than once in the same iteration: there must be none."""
    seen = Counter(
        (step.node_id, tuple(one.iteration for one in step.loops))
        for step in lab.trace(run)
        if step.status == "completed"
    )
    return [where for where, times in seen.items() if times > 1]


def asleep(lab: Lab, run: Run) -> Run:
    """Wait until the run sleeps, held by nobody."""

    def sleeps() -> Run | None:
        now = lab.get(run)
        return now if now.locked_by is None and now.next_attempt_at is not None else None

    return wait_for(sleeps, message=lambda: f"{lab.get(run)} {outline(lab, run)}")
