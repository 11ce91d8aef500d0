"""Takes a claimed run from node boundary to node boundary until it ends, waits or is stopped.

    restore the walk from the trace
    loop:  hear the news of what waits -> turn the loops -> start the next node -> call its handler
           -> note its outcome
           nothing ready: park the run, or complete it
    any answer of a boundary but "go": let go of the run

A boundary carries the end of the last node and the start of the next. Handlers never see the
database; an outcome is data that is written with the next boundary.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from app.clock import DatabaseClock
from app.domain.errors import ExpressionError, ValueRefused
from app.domain.graph import Graph, Node
from app.domain.jsonvalue import clean_text, dumps
from app.domain.lifecycle import CANCELLED, FAILED
from app.domain.outcomes import Done, Failed, Interrupted, LoopPlan, Outcome
from app.domain.progress import has_error_edge
from app.domain.retry import BASE_SECONDS, backoff
from app.engine import parking, riding, turning
from app.engine.course import TIMED_OUT, Course, give_up, of
from app.engine.frames import Frame, Parked, deadline
from app.engine.holds import Hold
from app.engine.nested import Nested
from app.engine.rebuild import rebuild
from app.engine.writer import GaveUp, Writer
from app.ids import step_id
from app.nodes.base import Context, NodeKind, NodeLimits
from app.nodes.loop import Loop as LoopKind
from app.store import leases, steps
from app.store.leases import EXECUTOR_STOPPED

log = logging.getLogger(__name__)

HOLD_SECONDS = 1.0  # a sleep that is no longer than this is waited for by the thread
MAX_LOSSES = 5  # executors that may be lost in a row while a run's nodes are in flight
MAX_TAKEOVERS = 4 * MAX_LOSSES  # take-overs in a row, whatever it was that ended the executors
LOOPS = LoopKind()


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What every worker thread needs to take a run on its way."""

    writer: Writer
    clock: DatabaseClock
    graphs: Callable[[str, int], Graph]  # by version id and revision
    kinds: Mapping[str, NodeKind]
    limits: NodeLimits
    nested: Nested
    draining: Callable[[], bool]  # whether this process wants to end
    slow: riding.Slow = field(default_factory=riding.Slow)

    def drive(self, hold: Hold) -> None:
        """Take the held run as far as it goes, and let go of it. Raises GaveUp only."""
        course: Course | None = None
        try:
            if hold.claimed.takeovers > MAX_TAKEOVERS:
                return self._give_up(hold, _poisonous(hold.claimed.takeovers))
            course = self._restore(hold)
            return self._drive(course)
        except GaveUp:
            raise
        except Exception as error:  # a run that we can't walk must not be claimed again and again
            log.exception("run can't go on", extra=of(hold))
            if course is None or course.tell():
                self._give_up(hold, f"internal error: {type(error).__name__}")

    def _give_up(self, hold: Hold, error: str) -> None:
        self.nested.cancel(hold.claimed)
        give_up(self.writer, hold, error)

    def _restore(self, hold: Hold) -> Course:
        claimed = hold.claimed
        graph = self.graphs(claimed.version_id, claimed.version_revision)
        trail: list[steps.Trail] = []
        last = 0
        if claimed.lost:
            self.writer.run(lambda c: leases.disown(c, claimed.id, claimed.token))
        if claimed.begun:
            loops = any(node.kind == LoopKind.kind for node in graph.nodes.values())
            trail, last = self.writer.run(
                lambda c: steps.trail(c, claimed.id, base=claimed.base_seq, loops=loops)
            )
        walk = rebuild(claimed, graph, self._plan, trail, last)
        self.nested.hear([parked for _, _, parked in walk.parked()])
        course = Course(
            hold,
            walk,
            writer=self.writer,
            nested=self.nested,
            clock=self.clock,
            kinds=self.kinds,
            limits=self.limits,
        )
        course.settle = partial(parking.settle, course, partial(self._parked_context, course))
        return course

    def _plan(self, node: Node, recorded: Mapping[str, Any]) -> LoopPlan:
        return LOOPS.plan(node.config, recorded)

    def _drive(self, course: Course) -> None:
        walk, hold = course.walk, course.hold
        if walk.doubt is not None:
            return course.doubt(walk.doubt)
        if (losses := walk.losses()) >= MAX_LOSSES:
            return course.fail(_poisonous(losses))
        if walk.failure is not None:  # the run was paused between that and its own failure
            return course.end_attempt(*walk.failure)
        while True:
            if self.draining():
                return course.release()
            if not self._hear(course) or not turning.turn_loops(course, self.failed):
                return None
            found = walk.ready(self.clock.now())
            if found is not None:
                if not self._step(course, *found):
                    return None
            elif (wake_at := walk.next_wake()) is not None:
                left = (wake_at - self.clock.now()).total_seconds()
                if left > HOLD_SECONDS or hold.stop.is_set():
                    return course.park()
                if not self._nap(course, left):
                    return None
            elif walk.waits():
                return course.park()
            else:
                return self._complete(course)

    # -- one node

    def _step(self, course: Course, frame: Frame, node: Node) -> bool:
        """Start ``node``, call it and note its outcome; False where the run was let go."""
        walk, hold, kind = course.walk, course.hold, self.kinds[node.kind]
        scope = frame.scope_of(node)
        rendered, recorded, refusal = self._render(node, scope)
        pure = kind.is_pure(node.config)
        if refusal is None and pure and riding.may_ride(course, self.slow, node):
            attempt, now = walk.attempt(frame, node.id) + 1, self.clock.now()
            step = walk.next_step_id
            context = self._context(course, frame, node, step, attempt, now, rendered)
            if riding.ride(course, self.slow, kind, node, context, recorded):
                return True
        connector = kind.connector(node.config, self.limits, node.subtype)
        token = None if connector is None else secrets.token_urlsafe(32)
        start = walk.start(
            frame,
            node,
            recorded,
            unsafe=not kind.replay_safe(node.config, self.limits),
            connector=connector,
            callback_sha256=token and hashlib.sha256(token.encode()).hexdigest(),
        )
        verdict = course.start(start)
        if verdict is None or verdict.started_at is None:
            return False
        walk.started(frame, start)
        walk.rides.behind = start.seq if pure else None
        if connector is not None:
            walk.dispatched.add(start.seq)
        own = step_id(course.claimed.id, start.seq)
        context = self._context(
            course, frame, node, own, start.attempt, verdict.started_at, rendered, token
        )
        outcome = refusal or self._call(context, frame, node, hold)
        if connector is not None and isinstance(outcome, (Failed, Interrupted)):
            outcome = self._called_back(course, node, context, start.seq) or outcome
        return self.note(course, frame, node, context, start.seq, outcome)

    def _called_back(
        self, course: Course, node: Node, context: Context, seq: int
    ) -> Outcome | None:
        """What the remote side has said of work whose request did not go well; None for nothing."""
        parked = Parked(seq, context.started_at, None, {}, metadata={"waitsFor": "callback"})
        course.look_again(parked)
        if parked.result is None:
            return None
        return parking.resume(course, node, context, parked, self.clock.now())

    def _render(
        self, node: Node, scope: Mapping[str, Any]
    ) -> tuple[dict[str, Any], str | None, Failed | None]:
        """The node's input, what the trace keeps of it as JSON, and what is wrong with it."""
        kind = self.kinds[node.kind]
        for lack in kind.missing(node.config):
            return {}, None, Failed(f"{lack.field}: {lack.message}", retryable=False)
        try:
            rendered = kind.bind(node.config, scope)
            kept = kind.record(rendered)
            limit = self.limits.output_max_bytes
            return rendered, dumps(kept, "input", max_bytes=limit) if kept else None, None
        except (ExpressionError, ValueRefused) as error:
            return {}, None, Failed(error.message, retryable=False)

    def _context(
        self,
        course: Course,
        frame: Frame,
        node: Node,
        own: str,
        attempt: int,
        started_at: datetime,
        rendered: Mapping[str, Any],
        token: str | None = None,
    ) -> Context:
        claimed = course.claimed
        return Context(
            organization_id=claimed.organization_id,
            metronome_id=claimed.metronome_id,
            run_id=claimed.id,
            step_id=own,
            node_id=node.id,
            node_label=node.label,
            attempt=attempt,
            config=node.config,
            input=rendered,
            scope=frame.scope_of(node),
            handles=frame.handles(node),
            started_at=started_at,
            idempotency_key=frame.idempotency_key(node, own),
            stop=course.hold.stop,
            limits=self.limits,
            callback_token=token,
            node_subtype=node.subtype,
        )

    def _call(self, context: Context, frame: Frame, node: Node, hold: Hold) -> Outcome:
        # The last look before a side effect: news of a cancel may have come since the boundary.
        if hold.stop.is_set():
            return Interrupted("the run was stopped before this node began its work")
        until, around = deadline(node, context.started_at), frame.limit()
        if around is not None and (until is None or around[0] < until):
            until = around[0]
        else:
            around = None
        try:
            if until is None:
                return self.kinds[node.kind].run(context)
            with hold.within(until) as stop:
                outcome = self.kinds[node.kind].run(replace(context, stop=stop))
        except Exception as error:  # whatever a handler raises fails its own node only
            log.exception("a node raised", extra=of(hold, node, context.step_id))
            return Failed(f"{type(error).__name__}: {error}")
        if around is not None and isinstance(outcome, Interrupted) and stop.reason == "timeout":
            around[1].expired = True
        return outcome

    def note(
        self,
        course: Course,
        frame: Frame,
        node: Node,
        context: Context,
        seq: int,
        outcome: Outcome,
    ) -> bool:
        """Note the outcome for the next boundary; False where it ended the run."""
        if isinstance(outcome, Interrupted) and not course.hold.stop.is_set():
            if (around := frame.limit()) is not None and around[1].expired:
                error = f"timed out with the loop around it: {outcome.detail}"
                course.walk.failed_within(frame, node, seq, error, None)
                return True  # the loop ends before anything else begins
            timeout = node.config.get("timeoutMs")
            what = f"timed out after {timeout} ms: " if timeout else ""
            outcome = Failed(f"{what}{outcome.detail}", output=outcome.output)
        outcome = parking.park(course, frame, node, context, seq, outcome) or outcome
        if not isinstance(outcome, (Done, Failed, Interrupted)):
            return True
        text = None
        try:
            if outcome.output:
                text = dumps(outcome.output, "output", max_bytes=self.limits.output_max_bytes)
        except ValueRefused as error:
            outcome = Failed(error.message, retryable=False)
        if isinstance(outcome, Done):
            course.walk.done(frame, node, seq, text or "{}", outcome.branch)
            return True
        if isinstance(outcome, Failed):
            return self.failed(course, frame, node, seq, outcome, text)
        return self._interrupted(course, frame, node, seq, outcome, text)

    def failed(
        self,
        course: Course,
        frame: Frame,
        node: Node,
        seq: int,
        outcome: Failed,
        text: str | None = None,
    ) -> bool:
        """A node has failed: try it again, take its error edge, or fail what it is part of."""
        walk = course.walk
        error = clean_text(outcome.error, parking.MAX_ERROR)
        log.info("node failed", extra={**of(course.hold, node), "error": error})
        tries = frame.tries.get(node.id, 0) + 1
        retry = node.config.get("retry") or {}
        if outcome.retryable and tries < (retry.get("maxAttempts") or 1):
            base = retry.get("backoffSeconds")
            wait = backoff(tries, base=BASE_SECONDS if base is None else base)
            at = self.clock.now() + timedelta(seconds=wait)
            walk.failed(frame, node, seq, error, text, at)
            return True
        if has_error_edge(frame.graph, node.id):
            walk.caught(frame, node, seq, error, text)
            return True
        if (loop := turning.way_on(frame)) is not None:
            walk.failed_within(frame, node, seq, error, text)
            failure = Failed(f"node {node.id} failed: {error}", outcome.retryable)
            return turning.fail_loop(course, loop, self.failed, failure)
        walk.failed_for_good(frame, node, seq, outcome, error, text)
        course.end_attempt(f"node {node.id} failed: {error}", outcome.retryable)
        return False

    def _interrupted(
        self,
        course: Course,
        frame: Frame,
        node: Node,
        seq: int,
        outcome: Interrupted,
        text: str | None,
    ) -> bool:
        reason = course.hold.stop.reason
        if reason == "timeout":
            course.walk.interrupted(frame, node, seq, FAILED, f"timed out: {outcome.detail}", text)
            course.fail(TIMED_OUT)
        elif reason == "shutdown":
            course.walk.interrupted(frame, node, seq, FAILED, EXECUTOR_STOPPED, text)
            if self.kinds[node.kind].replay_safe(node.config, self.limits):
                course.release()
            else:
                course.doubt(node.id)
        else:
            course.walk.interrupted(
                frame, node, seq, CANCELLED, f"interrupted: {outcome.detail}", text
            )
            course.stop()
        return False

    # -- what waits

    def _hear(self, course: Course) -> bool:
        """End what has news, or whose time has come; False where that ended the run."""
        while (found := course.walk.due(now := self.clock.now())) is not None:
            frame, node, parked = found
            if parked.result is None and parked.stored:  # news that came in time count
                course.look_again(parked)
                if not parked.is_due(now):
                    continue  # a heartbeat has put it off
            context = self._parked_context(course, frame, node, parked)
            outcome = parking.resume(course, node, context, parked, now)
            if not self.note(course, frame, node, context, parked.seq, outcome):
                return False
        return True

    def _parked_context(self, course: Course, frame: Frame, node: Node, parked: Parked) -> Context:
        attempt, own = course.walk.attempt(frame, node.id), step_id(course.claimed.id, parked.seq)
        return self._context(course, frame, node, own, attempt, parked.started_at, {})

    def _nap(self, course: Course, seconds: float) -> bool:
        """Wait for a short sleep to end, or for news of the run; False where it was let go."""
        if course.walk.untold():  # what has happened is in the trace before anybody waits
            return course.flush()
        course.hold.look.wait(max(0.0, seconds))
        return not course.hold.look.is_set() or course.still_ours()

    def _complete(self, course: Course) -> None:
        try:
            limit = self.limits.output_max_bytes
            course.complete(dumps(course.walk.output(), "output", max_bytes=limit))
        except ValueRefused as error:
            course.fail(error.message)


def _poisonous(losses: int) -> str:
    return (
        f"given up: {losses} executors in a row were lost while they held this run;"
        " one of its nodes seems to end them"
    )
