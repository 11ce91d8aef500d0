"""The levels of a run: the workflow itself, and in each loop that goes on the iteration it is at.

A frame knows which of its nodes have ended and what they answered, which of them are parked, and
which loops go on inside of it. It is rebuilt from the trace at every claim and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson

from app.domain.graph import FIXTURE, Graph, Node
from app.domain.lifecycle import RUNNING
from app.domain.outcomes import LoopPlan
from app.domain.progress import Progress
from app.store.leases import Claimed


@dataclass(slots=True)
class Parked:
    """A node that waits; ``stored`` says whether the database knows of it.

    ``deadline`` is the end of the node's own timeoutMs. ``result`` is what came from outside.
    """

    seq: int
    started_at: datetime
    wake_at: datetime | None
    output: dict[str, Any]
    status: str = RUNNING
    deadline: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    stored: bool = False

    def until(self) -> datetime | None:
        """When it is to be looked at, even without news."""
        if self.wake_at is None or self.deadline is None:
            return self.wake_at or self.deadline
        return min(self.wake_at, self.deadline)

    def is_due(self, now: datetime) -> bool:
        """Whether it has news, or its time has come."""
        until = self.until()
        return self.result is not None or (until is not None and until <= now)

    def timed_out(self, now: datetime) -> bool:
        """Whether it is the node's own timeoutMs that ends the wait."""
        return self.deadline is not None and self.deadline <= now and self.until() == self.deadline


class Frame:
    """One level of a run."""

    def __init__(
        self,
        graph: Graph,
        entries: frozenset[str],
        scope: dict[str, Any],
        *,
        loop: Loop | None = None,
        iteration: int | None = None,
    ) -> None:
        self.graph = graph
        self.progress = Progress(graph, entries)
        self.scope = scope
        self.loop = loop
        self.iteration = iteration
        self.outputs: dict[str, Any] = {}
        self.parked: dict[str, Parked] = {}
        self.loops: dict[str, Loop] = {}  # those that go on
        self.suspended: dict[str, Loop] = {}  # those that were closed before their end
        self.not_before: dict[str, datetime] = {}  # a failed node that is to be tried again
        self.attempts: dict[str, int] = {}
        self.tries: dict[str, int] = {}  # failures in this attempt of the run that were tried again
        self.losses: dict[str, int] = {}  # executors that were lost in a row in a node
        self.replays: dict[str, str] = {}  # the key of the step that a lost node replays
        self.recorded: set[str] = set()  # nodes whose skipping is in the trace
        self.stopped: set[str] = set()  # nodes that were in flight when the run stopped

    @property
    def loop_seq(self) -> int | None:
        """The step of the loop that this is an iteration of."""
        return None if self.loop is None else self.loop.seq

    def limit(self) -> tuple[datetime, Loop] | None:
        """When the own timeoutMs of a loop around this ends first, and of which; None without."""
        found: tuple[datetime, Loop] | None = None
        loop = self.loop
        while loop is not None:
            if loop.deadline is not None and (found is None or loop.deadline <= found[0]):
                found = loop.deadline, loop
            loop = loop.outer.loop
        return found

    def below(self) -> Iterator[Frame]:
        """This frame and those of the loops that go on inside of it."""
        yield self
        for loop in list(self.loops.values()):
            if loop.frame is not None:
                yield from loop.frame.below()

    def ready(self, now: datetime) -> Node | None:
        """The node that is to start now; None where every ready one waits."""
        for node_id in self.progress.each_ready():
            if node_id in self.parked or node_id in self.loops:
                continue
            waits = self.not_before.get(node_id)
            if waits is None or waits <= now:
                return self.graph.nodes[node_id]
        return None

    def exhausted(self) -> bool:
        """Whether every node has ended or was passed over."""
        return self.progress.is_over()

    def wakes(self) -> Iterator[datetime]:
        """The moments at which something here is to be looked at."""
        yield from self.not_before.values()
        for parked in self.parked.values():
            if (until := parked.until()) is not None:
                yield until
        for loop in self.loops.values():
            if loop.deadline is not None:
                yield loop.deadline

    def scope_of(self, node: Node) -> Mapping[str, Any]:
        """What the expressions of ``node`` may name."""
        if node.kind != "end":
            return self.scope
        inbound = {
            edge.source: self.outputs[edge.source]
            for edge in self.graph.incoming[node.id]
            if edge.source in self.outputs
        }
        return {**self.scope, "inbound": inbound}

    def handles(self, node: Node) -> frozenset[str]:
        """The handles of the edges that leave ``node``."""
        edges = self.graph.outgoing[node.id]
        return frozenset(edge.source_handle for edge in edges if edge.source_handle)

    def idempotency_key(self, node: Node, own: str) -> str:
        """The step's own id, or that of the step of which it is the replay."""
        return self.replays.get(node.id, own)

    def settle(self, node: Node, output: dict[str, Any], branch: str | None) -> None:
        """A node has ended well."""
        self._ended(node, output, {"output": output})
        self.progress.settle(node.id, branch)

    def fail(self, node: Node, output: dict[str, Any], error: str) -> None:
        """A node has failed for good, and its error edges are taken."""
        self._ended(node, output, {"output": output, "error": error})
        self.progress.fail(node.id)

    def _ended(self, node: Node, output: dict[str, Any], told: dict[str, Any]) -> None:
        self.outputs[node.id] = output
        self.scope["steps"][node.id] = told
        if node.output_key:
            self.scope[node.output_key] = output
        for waiting in (self.replays, self.not_before, self.parked, self.loops, self.suspended):
            waiting.pop(node.id, None)
        self.losses.pop(node.id, None)

    def result(self) -> dict[str, Any]:
        """What this level answers: the output of the end that was reached.

        Several ends answer by their ids; without a reached end, the last nodes do, but for what
        stands in for a node in a test.
        """
        nodes, outgoing = self.graph.nodes, self.graph.outgoing
        ends = [n for n in self.outputs if nodes[n].kind == "end"]
        last = ends or [n for n in self.outputs if not outgoing[n] and nodes[n].kind != FIXTURE]
        return answer({node: self.outputs[node] for node in last})


@dataclass(slots=True)
class Loop:
    """A loop that goes on: its step, its plan, and the iteration that it is at.

    ``expired`` says that its deadline has stopped a node inside of it. ``earlier`` are the steps of
    the loop that were closed before its end, and that it continues.
    """

    node: Node
    seq: int
    plan: LoopPlan
    outer: Frame  # the frame that the loop is a node of
    deadline: datetime | None = None
    expired: bool = False
    earlier: tuple[int, ...] = ()
    iteration: int = -1
    frame: Frame | None = None
    previous: dict[str, Any] | None = None  # what the iteration before answered

    def is_late(self, now: datetime) -> bool:
        """Whether its own timeoutMs has passed."""
        return self.expired or (self.deadline is not None and self.deadline <= now)

    def begin(self, iteration: int, graph: Graph, entries: frozenset[str]) -> Frame:
        """The frame of an iteration, of which the body's expressions see ``loop``."""
        items = [] if self.plan.items is None else self.plan.items[iteration]
        about = {
            "index": iteration,
            "count": self.plan.count,
            "item": items[0] if items else None,
            "items": items,
            "previous": self.previous,
            "outer": self.outer.scope.get("loop"),
        }
        scope = {
            **self.outer.scope,
            "steps": dict(self.outer.scope["steps"]),
            "loop": about,
        }
        self.iteration = iteration
        self.frame = Frame(graph, entries, scope, loop=self, iteration=iteration)
        return self.frame


def first_scope(claimed: Claimed) -> dict[str, Any]:
    """What the expressions of a run may name before any of its nodes has ended."""
    return {
        "trigger": {"input": orjson.loads(claimed.input), "type": claimed.trigger_type},
        "steps": {},
        "run": {
            "id": claimed.id,
            "metronomeId": claimed.metronome_id,
            "versionId": claimed.version_id,
            "attempt": claimed.attempt_count,
        },
    }


def deadline(node: Node, started_at: datetime) -> datetime | None:
    """When the node's own timeoutMs ends; None without one."""
    timeout = node.config.get("timeoutMs")
    return None if not timeout else started_at + timedelta(milliseconds=timeout)


def answer(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """One output stands for itself; several answer by the ids of their nodes."""
    if len(outputs) == 1:
        (only,) = outputs.values()
        return dict(only)
    return dict(outputs)
