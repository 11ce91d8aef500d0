"""A walk, rebuilt from the trace of its run.

Every claim begins here, so a first start, a wake-up and a take-over are the same code. Steps come
in the order in which they began: a loop's own step before those of its body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from app.domain.graph import Graph, Node
from app.domain.lifecycle import COMPLETED, FAILED, OPEN_STEP, SKIPPED
from app.domain.outcomes import LoopPlan
from app.domain.progress import ERROR_HANDLE, body_entries
from app.engine.frames import Frame, Loop, Parked, deadline
from app.engine.walk import Walk
from app.ids import step_id
from app.store.boundary import StepEnd
from app.store.leases import EXECUTOR_LOST, EXECUTOR_STOPPED, Claimed
from app.store.steps import Trail

LOOP = "loop"  # the node kind whose steps go on while their body runs
Plan = Callable[[Node, Mapping[str, Any]], LoopPlan]


def rebuild(
    claimed: Claimed, graph: Graph, plan: Plan, trail: Sequence[Trail] = (), last: int = 0
) -> Walk:
    """The walk of a run that was just claimed.

    ``plan`` reads a loop's plan from what its step has recorded; ``last`` is the seq of the last
    step in the trace.
    """
    walk = Walk(claimed, graph, last)
    memory = _Memory(walk, plan)
    for step in trail:
        memory.remember(step)
    walk.doubt = memory.doubt()
    return walk


@dataclass(frozen=True, slots=True)
class _Known:
    """What the trace says of one step, and where in the walk it belongs."""

    frame: Frame
    node: Node
    step: Trail
    began: datetime
    output: dict[str, Any]
    metadata: dict[str, Any]


class _Memory:
    def __init__(self, walk: Walk, plan: Plan) -> None:
        self._walk = walk
        self._plan = plan
        self._loops: dict[int, Loop] = {}  # by the seq of their steps
        self._doubts: dict[tuple[int, str], str] = {}  # lost nodes that may do harm when run again

    def doubt(self) -> str | None:
        """A node that was lost, may do harm when it runs again, and that nobody was asked about."""
        return next(iter(self._doubts.values()), None)

    def remember(self, step: Trail) -> None:
        if step.node_id not in self._walk.graph.nodes:
            return
        if step.started_at is None and step.status != SKIPPED:
            return  # was only noted as next when the run was cancelled
        node = self._walk.graph.nodes[step.node_id]
        frame = self._frame_of(step)
        if frame is None or step.node_id not in frame.graph.nodes:
            return
        if step.started_at is None:
            frame.recorded.add(node.id)
            return
        frame.attempts[node.id] = step.attempt
        frame.replays.pop(node.id, None)
        frame.not_before.pop(node.id, None)
        known = _Known(
            frame,
            node,
            step,
            step.started_at,
            orjson.loads(step.output) if step.output else {},
            orjson.loads(step.metadata) if step.metadata else {},
        )
        self._doubts.pop((id(frame), node.id), None)  # it was started again since
        if step.status == COMPLETED:
            frame.settle(node, known.output, known.metadata.get("branch"))
        elif step.status in OPEN_STEP:
            self._open(known)
        else:
            self._ended(known)

    def _frame_of(self, step: Trail) -> Frame | None:
        """The frame that a step belongs to: of a loop, that of its iteration."""
        if step.parent_seq is None or step.iteration is None:
            return self._walk.top
        loop = self._loops.get(step.parent_seq)
        if loop is None:
            return None
        if loop.iteration != step.iteration:
            if loop.frame is not None and loop.iteration >= 0:
                loop.previous = loop.frame.result()
            body = self._walk.graph.body(loop.node.id)
            loop.begin(step.iteration, body, body_entries(body))
        return loop.frame

    def _open(self, known: _Known) -> None:
        frame, node, step = known.frame, known.node, known.step
        if step.lease_token is not None and step.result is None:
            # somebody was in flight in it, and is gone
            self._lost(known)
            # A connector that may be given the same work again is not told to stop it.
            end = StepEnd(step.seq, FAILED, error=EXECUTOR_LOST, tell=step.unsafe)
            self._walk.pending.ends.append(end)
        elif node.kind == LOOP:
            frame.loops[node.id] = self._loop(known)
        else:
            frame.parked[node.id] = Parked(
                step.seq,
                known.began,
                step.wake_at,
                known.output,
                status=step.status,
                deadline=deadline(node, known.began),
                metadata=known.metadata,
                result=orjson.loads(step.result) if step.result else None,
                stored=True,
            )
            if known.metadata.get("waitsFor") == "callback":
                self._walk.dispatched.add(step.seq)

    def _ended(self, known: _Known) -> None:
        frame, node, step, metadata = known.frame, known.node, known.step, known.metadata
        if metadata.get("branch") == ERROR_HANDLE and step.status == FAILED:
            frame.fail(node, known.output, step.error or "")
            return
        if node.kind == LOOP and "waitsFor" in metadata:  # it had begun to go round
            frame.suspended[node.id] = self._loop(known)
        if step.error in (EXECUTOR_LOST, EXECUTOR_STOPPED):
            self._lost(known)
        elif "retryAt" in metadata:
            frame.not_before[node.id] = datetime.fromisoformat(metadata["retryAt"])
            if metadata.get("runAttempt") == self._walk.claimed.attempt_count:
                frame.tries[node.id] = frame.tries.get(node.id, 0) + 1
        elif metadata.get("runAttempt") == self._walk.claimed.attempt_count:
            self._walk.failure = (f"node {node.id} failed: {step.error}", metadata["retryable"])

    def _lost(self, known: _Known) -> None:
        frame, node, step, claimed = known.frame, known.node, known.step, self._walk.claimed
        if step.unsafe:
            if step.seq > claimed.confirmed_seq:
                self._doubts[id(frame), node.id] = node.id
        elif step.error != EXECUTOR_STOPPED and (
            claimed.queued_at is None or known.began > claimed.queued_at  # not before a retry
        ):
            frame.losses[node.id] = frame.losses.get(node.id, 0) + 1
        own = step_id(claimed.id, step.seq)
        frame.replays[node.id] = known.metadata.get("replayOf", own)

    def _loop(self, known: _Known) -> Loop:
        step = known.step
        plan = self._plan(known.node, orjson.loads(step.input) if step.input else {})
        loop = self._walk.new_loop(known.frame, known.node, step.seq, plan, known.began)
        self._loops[step.seq] = loop
        return loop
