"""One run on its way through its graph: what has happened, what is next.

It is rebuilt from the trace at every claim, so a first start, a wake-up and a take-over are the
same code. It decides nothing about stopping and writes nothing: the interpreter does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from app.domain.graph import Graph, Node
from app.domain.lifecycle import CANCELLED, COMPLETED, FAILED, RUNNING, SKIPPED
from app.domain.outcomes import Failed
from app.domain.progress import Progress
from app.ids import step_id
from app.store.boundary import StepEnd, StepSleep, StepStart
from app.store.leases import EXECUTOR_LOST, EXECUTOR_STOPPED, Claimed, NextNode
from app.store.steps import Trail


@dataclass(slots=True)
class Sleeper:
    """A node that sleeps; ``stored`` says whether the database knows of it."""

    seq: int
    started_at: datetime
    wake_at: datetime
    output: dict[str, Any]
    stored: bool


@dataclass(slots=True)
class Pending:
    """What has happened since the last boundary and goes into the next one."""

    ends: list[StepEnd] = field(default_factory=list)
    sleeps: list[StepSleep] = field(default_factory=list)


class Walk:
    """The state of one claimed run."""

    def __init__(self, claimed: Claimed, graph: Graph, trail: Sequence[Trail]) -> None:
        self.claimed = claimed
        self.graph = graph
        self.progress = Progress(graph, claimed.trigger_type)
        self.sleepers: dict[str, Sleeper] = {}
        self.not_before: dict[str, datetime] = {}  # a failed node that is to be tried again
        self.pending = Pending()
        self.outputs: dict[str, Any] = {}
        self._next_seq = 1
        self._attempts: dict[str, int] = {}
        self._replays: dict[str, str] = {}
        self._gave_up: str | None = None  # the node that was on when the run stopped, and not next
        self.failure: tuple[str, bool] | None = None  # what ends this attempt; may it be repeated?
        self._recorded: set[str] = set()  # nodes whose skipping is in the trace
        self._scope = self._new_scope()
        for step in trail:
            self._remember(step)

    # -- what comes next

    def ready(self, now: datetime) -> Node | None:
        """The node that is to start now; None where every ready one sleeps or backs off."""
        for node_id in self.progress.ready():
            waits = self.not_before.get(node_id)
            if node_id not in self.sleepers and (waits is None or waits <= now):
                return self.graph.nodes[node_id]
        return None

    def next_wake(self) -> datetime | None:
        """When the first of those that sleep or back off is due."""
        moments = [sleeper.wake_at for sleeper in self.sleepers.values()]
        moments += self.not_before.values()
        return min(moments, default=None)

    def due_sleeper(self, now: datetime) -> str | None:
        """A node whose sleep is over."""
        due = [(s.wake_at, node) for node, s in self.sleepers.items() if s.wake_at <= now]
        return min(due)[1] if due else None

    def attempt(self, node_id: str) -> int:
        """How often the node has been started."""
        return self._attempts.get(node_id, 0)

    def nexts(self) -> list[NextNode]:
        """The nodes that would have started, for the trace of a cancelled run."""
        return [
            NextNode(
                self._next_seq + place,
                node_id,
                self.graph.nodes[node_id].kind,
                self.attempt(node_id) + 1,
            )
            for place, node_id in enumerate(
                node
                for node in self.progress.ready()
                if node not in self.sleepers and node != self._gave_up
            )
        ]

    def scope(self, node: Node) -> Mapping[str, Any]:
        """What the expressions of ``node`` may name."""
        if node.kind != "end":
            return self._scope
        inbound = {
            edge.source: self.outputs[edge.source]
            for edge in self.graph.incoming[node.id]
            if edge.source in self.outputs
        }
        return {**self._scope, "inbound": inbound}

    def handles(self, node: Node) -> frozenset[str]:
        """The handles of the edges that leave ``node``."""
        edges = self.graph.outgoing[node.id]
        return frozenset(edge.source_handle for edge in edges if edge.source_handle)

    def idempotency_key(self, node_id: str, own: str) -> str:
        """The step's own id, or that of the step of which it is the replay."""
        return self._replays.get(node_id, own)

    # -- what goes into the next boundary

    def start(self, node: Node, recorded_input: str | None) -> StepStart:
        """The step that is to start ``node``."""
        replay = self._replays.get(node.id)
        return StepStart(
            seq=self._take_seq(),
            node_id=node.id,
            node_type=node.kind,
            attempt=self.attempt(node.id) + 1,
            input=recorded_input,
            metadata=None if replay is None else _json({"replayOf": replay}),
        )

    def started(self, step: StepStart) -> None:
        """The database has recorded the start of ``step``."""
        self._attempts[step.node_id] = step.attempt
        self.not_before.pop(step.node_id, None)

    def skips(self) -> list[StepStart]:
        """The steps of nodes that are passed over and not yet in the trace."""
        return [
            StepStart(self._take_seq(), node, self.graph.nodes[node].kind, 1, status=SKIPPED)
            for node in self.progress.take_skipped()
            if node not in self._recorded
        ]

    def done(self, node: Node, seq: int, text: str, branch: str | None) -> None:
        """A node has ended well; ``text`` is its output as JSON."""
        metadata = None if branch is None else _json({"branch": branch})
        self.pending.ends.append(StepEnd(seq, COMPLETED, output=text, metadata=metadata))
        # Read back, as after a take-over: an output may be part of the scope that it is put into.
        self._settle(node.id, orjson.loads(text), branch)

    def failed(self, node: Node, seq: int, error: str, output: str | None, at: datetime) -> None:
        """A node has failed, and is to be tried again ``at`` a time, in the same attempt."""
        self.not_before[node.id] = at
        metadata = _json({"retryAt": at})
        self.pending.ends.append(StepEnd(seq, FAILED, output, error, metadata))

    def failed_for_good(
        self, node: Node, seq: int, outcome: Failed, error: str, output: str | None
    ) -> None:
        """A node has failed, and this attempt of the run with it.

        The trace says so, for the case that the run is paused before it can fail.
        """
        self._gave_up = node.id
        self.failure = (f"node {node.id} failed: {error}", outcome.retryable)
        metadata = {"runAttempt": self.claimed.attempt_count, "retryable": outcome.retryable}
        self.pending.ends.append(StepEnd(seq, FAILED, output, error, _json(metadata)))

    def interrupted(
        self, node: Node, seq: int, status: str, error: str, output: str | None
    ) -> None:
        """A node in flight gave up because its run stopped."""
        self._gave_up = node.id
        self.pending.ends.append(StepEnd(seq, status, output, error))

    def asleep(self, node: Node, sleeper: Sleeper) -> None:
        """A node sleeps; the next boundary says so, unless it has woken by then."""
        self.sleepers[node.id] = sleeper

    def woken(self, node_id: str, text: str) -> None:
        """A sleeping node is done; ``text`` is its output as JSON."""
        sleeper = self.sleepers.pop(node_id)
        self.done(self.graph.nodes[node_id], sleeper.seq, text, None)

    def close_sleepers(self, error: str) -> None:
        """The run ends while nodes sleep: they end cancelled."""
        for sleeper in self.sleepers.values():
            self.pending.ends.append(StepEnd(sleeper.seq, CANCELLED, error=error))
        self.sleepers.clear()

    def take_pending(self) -> Pending:
        """What is to be written now; sleeps of which the database does not know are among it."""
        pending, self.pending = self.pending, Pending()
        for sleeper in self.sleepers.values():
            if not sleeper.stored:
                text = _json(sleeper.output) if sleeper.output else None
                pending.sleeps.append(StepSleep(sleeper.seq, sleeper.wake_at, text))
                sleeper.stored = True
        return pending

    def output(self) -> dict[str, Any]:
        """What the run answers: the output of the end that was reached.

        Several ends answer by their ids; a graph without a reached end by its last nodes.
        """
        ends = [n for n in self.outputs if self.graph.nodes[n].kind == "end"]
        last = ends or [n for n in self.outputs if not self.graph.outgoing[n]]
        if len(last) == 1:
            result: dict[str, Any] = self.outputs[last[0]]
            return result
        return {node: self.outputs[node] for node in last}

    # -- rebuilding

    def _new_scope(self) -> dict[str, Any]:
        claimed = self.claimed
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

    def _remember(self, step: Trail) -> None:
        self._next_seq = step.seq + 1
        if step.node_id not in self.graph.nodes:
            return
        if step.status == SKIPPED:
            self._recorded.add(step.node_id)
            return
        if step.started_at is None:  # was only noted as next when the run was cancelled
            return
        metadata = orjson.loads(step.metadata) if step.metadata else {}
        self._attempts[step.node_id] = step.attempt
        self._replays.pop(step.node_id, None)
        if step.status == COMPLETED:
            output = orjson.loads(step.output) if step.output else {}
            self._settle(step.node_id, output, metadata.get("branch"))
        elif step.status == RUNNING and step.wake_at is not None:
            output = orjson.loads(step.output) if step.output else {}
            self.sleepers[step.node_id] = Sleeper(
                step.seq, step.started_at, step.wake_at, output, stored=True
            )
        elif step.error in (EXECUTOR_LOST, EXECUTOR_STOPPED):
            own = step_id(self.claimed.id, step.seq)
            self._replays[step.node_id] = metadata.get("replayOf", own)
        elif "retryAt" in metadata:
            self.not_before[step.node_id] = datetime.fromisoformat(metadata["retryAt"])
        elif metadata.get("runAttempt") == self.claimed.attempt_count:
            self.failure = (f"node {step.node_id} failed: {step.error}", metadata["retryable"])

    def _settle(self, node_id: str, output: dict[str, Any], branch: str | None) -> None:
        node = self.graph.nodes[node_id]
        self.outputs[node_id] = output
        self._scope["steps"][node_id] = {"output": output}
        if node.output_key:
            self._scope[node.output_key] = output
        self._replays.pop(node_id, None)
        self.not_before.pop(node_id, None)
        self.progress.settle(node_id, branch)

    def _take_seq(self) -> int:
        seq = self._next_seq
        self._next_seq += 1
        return seq


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
