"""One run on its way through its graph: what has happened, what is next.

It is rebuilt from the trace at every claim (rebuild.py). It decides nothing about stopping and
writes nothing: the interpreter does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

from app.domain.graph import Graph, Node
from app.domain.lifecycle import (
    CANCELLED,
    COMPLETED,
    FAILED,
    SKIPPED,
    WAITING_APPROVAL,
)
from app.domain.outcomes import Failed, LoopPlan
from app.domain.progress import ERROR_HANDLE, body_entries, entry_nodes
from app.engine.frames import Frame, Loop, Parked, deadline, first_scope
from app.engine.pending import Pending, Rides
from app.ids import step_id
from app.store.boundary import Spawn, StepEnd, StepPark, StepStart
from app.store.leases import Claimed, NextNode


class Walk:
    """The state of one claimed run; ``last`` is the seq of the last step that is in its trace."""

    def __init__(self, claimed: Claimed, graph: Graph, last: int = 0) -> None:
        self.claimed = claimed
        self.graph = graph
        self.pending = Pending()
        self.rides = Rides()
        self.failure: tuple[str, bool] | None = None  # what ends this attempt; may it be repeated?
        self.doubt: str | None = None  # a lost node that may do harm when it runs again
        self._next_seq = max(last, claimed.base_seq) + 1
        self.dispatched: set[int] = set()  # steps of which a connector knows that they are open
        self.heard: set[int] = set()  # steps that end by what came from outside
        self._passed: list[StepStart] = []
        self._new_parked: list[tuple[Frame, str, Parked]] = []
        # No parked node is due before this; None where only news can end what waits. What was
        # parked by an earlier claim may have news, which are read when the walk is rebuilt.
        self._look_at: datetime | None = datetime.min.replace(tzinfo=UTC)
        body = graph.body(None)
        named = orjson.loads(claimed.entry_nodes or "[]")
        entries = entry_nodes(body, claimed.trigger_type, named)
        self.top = Frame(body, entries, first_scope(claimed))

    # -- what comes next

    def frames(self) -> Iterable[Frame]:
        """Every level, from the top."""
        return self.top.below() if self.top.loops else (self.top,)

    def ready(self, now: datetime) -> tuple[Frame, Node] | None:
        """The node that is to start now; None where every ready one waits."""
        for frame in self.frames():
            node = frame.ready(now)
            if node is not None:
                return frame, node
        return None

    def next_wake(self) -> datetime | None:
        """When the first of those that wait is due, even without news."""
        return min((moment for frame in self.frames() for moment in frame.wakes()), default=None)

    def waits(self) -> bool:
        """Whether something is parked, or is to be tried again."""
        return any(frame.parked or frame.not_before for frame in self.frames())

    def is_straight(self) -> bool:
        """Whether nothing is parked, no loop goes on, and nothing was passed over untold."""
        top = self.top
        return not (top.parked or top.loops or self._passed or top.progress.has_skipped())

    def has_nested(self) -> bool:
        """Whether a nested run has begun for which a node waits."""
        return any(p.stored and "childRunId" in p.metadata for _, _, p in self.parked())

    def awaits_approval(self) -> bool:
        """Whether a person is asked for something."""
        return any(p.status == WAITING_APPROVAL for f in self.frames() for p in f.parked.values())

    def due(self, now: datetime) -> tuple[Frame, Node, Parked] | None:
        """A parked node that has news, or whose time has come."""
        if self._look_at is None or self._look_at > now:
            return None
        found: tuple[datetime, Frame, Node, Parked] | None = None
        for frame in self.frames():
            for node_id, parked in frame.parked.items():
                until = parked.started_at if parked.result is not None else parked.until()
                if until is not None and (found is None or until < found[0]):
                    found = (until, frame, frame.graph.nodes[node_id], parked)
        self._look_at = None if found is None else found[0]
        return None if found is None or found[0] > now else found[1:]

    def parked(self) -> Iterator[tuple[Frame, Node, Parked]]:
        """Every parked node."""
        for frame in self.frames():
            for node_id, parked in frame.parked.items():
                yield frame, frame.graph.nodes[node_id], parked

    def untold(self) -> bool:
        """Whether something waits to be written that others may look for: all but short sleeps."""
        pending = self.pending
        return bool(pending.ends or pending.parks or pending.spawns or self.rides.steps) or any(
            parked.metadata.get("waitsFor") != "time" for parked in self._unstored()
        )

    def losses(self) -> int:
        """How many executors were lost in a row in one node."""
        return max((n for frame in self.frames() for n in frame.losses.values()), default=0)

    def turning(self) -> Loop | None:
        """A loop whose iteration is over, or that has not begun one."""
        for frame in self.frames():
            for loop in frame.loops.values():
                if loop.frame is None or loop.frame.exhausted():
                    return loop
        return None

    def late_loop(self, now: datetime) -> Loop | None:
        """A loop whose own timeoutMs has passed."""
        for frame in self.frames():
            for loop in frame.loops.values():
                if loop.is_late(now):
                    return loop
        return None

    def attempt(self, frame: Frame, node_id: str) -> int:
        """The number of the node's last attempt."""
        return frame.attempts.get(node_id, self.claimed.base_attempt)

    def nexts(self) -> list[NextNode]:
        """The nodes that would have started, for the trace of a cancelled run."""
        rides, first, rode = self.rides, self._next_seq, set[str]()
        ready = ((frame, node) for frame in self.frames() for node in frame.progress.ready())
        if rides.before is not None:  # of what came since, nothing is in the trace
            first, rode = rides.first, rides.rode
            ready = ((self.top, node) for node in rides.before)
        waiting = [
            (frame, node)
            for frame, node in ready
            if node not in frame.parked and node not in frame.loops and node not in frame.stopped
        ]
        return [
            NextNode(
                first + place,
                node,
                self.graph.nodes[node].kind,
                self.attempt(frame, node) + (node not in rode),
                frame.loop_seq,
                frame.iteration,
            )
            for place, (frame, node) in enumerate(waiting)
        ]

    # -- what goes into the next boundary

    def start(
        self,
        frame: Frame,
        node: Node,
        recorded_input: str | None,
        *,
        branch: str | None = None,
        **more: Any,
    ) -> StepStart:
        """The step that is to start ``node``; ``more`` are further fields of a StepStart.

        ``branch`` is the one that it has taken, where it has ended already.
        """
        self._passed = self.skips()  # they were passed over before, and come before it in the trace
        metadata: dict[str, Any] = {} if branch is None else {"branch": branch}
        if replay := frame.replays.get(node.id):
            metadata["replayOf"] = replay
        if suspended := frame.suspended.get(node.id):
            metadata["continues"] = step_id(self.claimed.id, suspended.seq)
        return StepStart(
            seq=self._take_seq(),
            node_id=node.id,
            node_type=node.kind,
            attempt=self.attempt(frame, node.id) + 1,
            input=recorded_input,
            parent_seq=frame.loop_seq,
            iteration=frame.iteration,
            metadata=_json(metadata) if metadata else None,
            **more,
        )

    @property
    def next_step_id(self) -> str:
        """The id of the step that starts next, where nothing is passed over before it."""
        return step_id(self.claimed.id, self._next_seq)

    def started(self, frame: Frame, step: StepStart) -> None:
        """The database has recorded the start of ``step``."""
        frame.attempts[step.node_id] = step.attempt
        frame.not_before.pop(step.node_id, None)

    def skips(self) -> list[StepStart]:
        """The steps of nodes that are passed over and not yet in the trace."""
        passed, self._passed = self._passed, []
        for frame in self.frames():
            passed += self._skips_of(frame)
        return passed

    def _skips_of(self, frame: Frame) -> list[StepStart]:
        return [
            StepStart(
                self._take_seq(),
                node,
                self.graph.nodes[node].kind,
                1,
                status=SKIPPED,
                parent_seq=frame.loop_seq,
                iteration=frame.iteration,
            )
            for node in frame.progress.take_skipped()
            if node not in frame.recorded
        ]

    def done(self, frame: Frame, node: Node, seq: int, text: str, branch: str | None) -> None:
        """A node has ended well; ``text`` is its output as JSON."""
        metadata = None if branch is None else _json({"branch": branch})
        self.dispatched.discard(seq)
        self.pending.ends.append(
            StepEnd(seq, COMPLETED, output=text, metadata=metadata, heard=seq in self.heard)
        )
        # Read back, as after a take-over: an output may be part of the scope that it is put into.
        frame.settle(node, orjson.loads(text), branch)

    def failed(
        self, frame: Frame, node: Node, seq: int, error: str, output: str | None, at: datetime
    ) -> None:
        """A node has failed, and is to be tried again ``at`` a time, in the same attempt."""
        metadata = _json({"retryAt": at, "runAttempt": self.claimed.attempt_count})
        self._unpark(frame, node)
        frame.tries[node.id] = frame.tries.get(node.id, 0) + 1
        frame.not_before[node.id] = at
        self._end(seq, FAILED, error, output, metadata)

    def caught(self, frame: Frame, node: Node, seq: int, error: str, output: str | None) -> None:
        """A node has failed for good, and an edge leads on from that."""
        metadata = _json({"branch": ERROR_HANDLE})
        self._unpark(frame, node)
        self._end(seq, FAILED, error, output, metadata)
        frame.fail(node, orjson.loads(output) if output else {}, error)

    def failed_within(
        self, frame: Frame, node: Node, seq: int, error: str, output: str | None
    ) -> None:
        """A node has failed for good, and a loop around it is to fail with it."""
        self._unpark(frame, node)
        self._end(seq, FAILED, error, output)

    def failed_for_good(
        self, frame: Frame, node: Node, seq: int, outcome: Failed, error: str, output: str | None
    ) -> None:
        """A node has failed, and this attempt of the run with it.

        The trace says so, for the case that the run is paused before it can fail.
        """
        metadata = {"runAttempt": self.claimed.attempt_count, "retryable": outcome.retryable}
        self._unpark(frame, node)
        frame.stopped.add(node.id)
        self.failure = (f"node {node.id} failed: {error}", outcome.retryable)
        self._end(seq, FAILED, error, output, _json(metadata))

    def interrupted(
        self,
        frame: Frame,
        node: Node,
        seq: int,
        status: str,
        error: str,
        output: str | None,
    ) -> None:
        """A node in flight gave up because its run stopped."""
        frame.stopped.add(node.id)
        self._end(seq, status, error, output)

    def park(self, frame: Frame, node: Node, parked: Parked, spawn: Spawn | None = None) -> None:
        """A node waits; the next boundary says so, unless it has ended by then."""
        frame.parked[node.id] = parked
        self._new_parked.append((frame, node.id, parked))
        until = parked.until()
        if until is not None and (self._look_at is None or until < self._look_at):
            self._look_at = until
        if spawn is not None:
            self.pending.spawns.append(spawn)

    def open_loop(
        self, frame: Frame, node: Node, seq: int, plan: LoopPlan, started_at: datetime
    ) -> None:
        """A loop begins, or goes on where it was closed before its end."""
        frame.loops[node.id] = self.new_loop(frame, node, seq, plan, started_at)
        self.pending.parks.append(StepPark(seq, None, metadata=_json({"waitsFor": "iterations"})))

    def leave(self, loop: Loop) -> None:
        """An iteration is over: what was passed over in it still has to be told."""
        if loop.frame is not None:
            self._passed += self._skips_of(loop.frame)

    def turn(self, loop: Loop) -> None:
        """Begin the next iteration of a loop."""
        self.leave(loop)
        body = self.graph.body(loop.node.id)
        if loop.frame is not None:
            loop.previous = loop.frame.result()
        loop.begin(loop.iteration + 1, body, body_entries(body))

    def close(self, top: Frame, error: str) -> None:
        """What waits in a frame and below it ends cancelled, for something around it fails."""
        closed: list[int] = []
        for frame in list(top.below()):
            closed += [parked.seq for parked in frame.parked.values()]
            closed += [loop.seq for loop in frame.loops.values()]
            frame.parked.clear()
            frame.suspended |= frame.loops
            frame.loops.clear()
        self.pending.spawns = [s for s in self.pending.spawns if s.seq not in closed]
        for seq in closed:
            self._end(seq, CANCELLED, error)

    def _unpark(self, frame: Frame, node: Node) -> None:
        """A node that waited, or a loop that went on, does so no longer."""
        frame.parked.pop(node.id, None)
        if loop := frame.loops.pop(node.id, None):
            frame.suspended[node.id] = loop

    def _end(
        self,
        seq: int,
        status: str,
        error: str,
        output: str | None = None,
        metadata: str | None = None,
    ) -> None:
        """A step ends otherwise than well; its connector is told, unless that said so itself."""
        tell, heard = seq in self.dispatched, seq in self.heard
        self.dispatched.discard(seq)
        self.pending.ends.append(StepEnd(seq, status, output, error, metadata, tell, heard))

    def take_pending(self) -> Pending:
        """What is to be written now; parked nodes of which the database does not know are in it."""
        pending, self.pending = self.pending, Pending()
        if pending.parks:  # a loop that ends at once is never parked: one statement, one write
            ended = {end.seq for end in pending.ends}
            pending.parks = [park for park in pending.parks if park.seq not in ended]
        for parked in self._unstored():
            text = _json(parked.output) if parked.output else None
            metadata = _json(parked.metadata) if parked.metadata else None
            tell = parked.seq in self.dispatched
            pending.parks.append(
                StepPark(parked.seq, parked.until(), text, parked.status, metadata, tell)
            )
            parked.stored = True
        self._new_parked.clear()
        return pending

    def _unstored(self) -> list[Parked]:
        """What waits, and the database does not know it yet."""
        return [new for frame, node, new in self._new_parked if frame.parked.get(node) is new]

    def output(self) -> dict[str, Any]:
        """What the run answers."""
        return self.top.result()

    def new_loop(
        self, frame: Frame, node: Node, seq: int, plan: LoopPlan, started_at: datetime
    ) -> Loop:
        """The loop of the step ``seq``; it goes on where one was closed before its end."""
        earlier = frame.suspended.pop(node.id, None) or frame.loops.pop(node.id, None)
        loop = Loop(node, seq, plan, frame, deadline(node, started_at))
        if earlier is not None:
            loop.earlier = (*earlier.earlier, earlier.seq)
            loop.iteration, loop.previous = earlier.iteration, earlier.previous
            loop.frame = earlier.frame
            if loop.frame is not None:
                loop.frame.loop = loop
        return loop

    def _take_seq(self) -> int:
        seq = self._next_seq
        self._next_seq += 1
        return seq


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
