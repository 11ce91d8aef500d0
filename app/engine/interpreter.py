"""Takes a claimed run from node boundary to node boundary until it ends, waits or is stopped.

    restore the walk from the trace
    loop:  wake sleepers -> start the next node -> call its handler -> note its outcome
           nothing ready: sleep, or complete
    any answer of a boundary but "go": let go of the run

A boundary carries the end of the last node and the start of the next. Handlers never see the
database; an outcome is data that is written with the next boundary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from app.clock import DatabaseClock
from app.domain import lifecycle
from app.domain.errors import ExpressionError, ValueRefused
from app.domain.expressions import render
from app.domain.graph import Graph, Node
from app.domain.jsonvalue import dumps
from app.domain.lifecycle import CANCELLED, FAILED
from app.domain.outcomes import Done, Failed, Interrupted, Outcome, SleepUntil
from app.domain.retry import BASE_SECONDS, backoff
from app.engine.holds import Hold
from app.engine.walk import Sleeper, Walk
from app.engine.writer import GaveUp, Writer
from app.ids import step_id
from app.nodes.base import Context, NodeKind, NodeLimits
from app.store import leases, steps
from app.store.boundary import Boundary, Move, StepStart, Verdict
from app.store.leases import EXECUTOR_STOPPED

log = logging.getLogger(__name__)

HOLD_SECONDS = 1.0  # a sleep that is no longer than this is waited for by the thread


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What every worker thread needs to take a run on its way."""

    writer: Writer
    clock: DatabaseClock
    graphs: Callable[[str], Graph]  # by version id
    kinds: Mapping[str, NodeKind]
    limits: NodeLimits
    draining: Callable[[], bool]  # whether this process wants to end

    def drive(self, hold: Hold) -> None:
        """Take the held run as far as it goes, and let go of it. Raises GaveUp only."""
        try:
            self._drive(self._restore(hold), hold)
        except GaveUp:
            raise
        except Exception as error:  # a run that we can't walk must not be claimed again and again
            log.exception("run can't go on", extra=_of(hold))
            self._give_up(hold, f"internal error: {type(error).__name__}")

    def _drive(self, walk: Walk, hold: Hold) -> None:
        if walk.failure is not None:  # the run was paused between that and its own failure
            return self._end_attempt(walk, hold, *walk.failure)
        while True:
            if self.draining():
                return self._release(walk, hold)
            self._wake(walk)
            node = walk.ready(self.clock.now())
            if node is not None:
                if not self._step(walk, hold, node):
                    return
            elif (wake_at := walk.next_wake()) is not None:
                left = (wake_at - self.clock.now()).total_seconds()
                if left > HOLD_SECONDS or hold.stop.is_set():
                    return self._finish(walk, hold, Move(lifecycle.SLEEP.name, wake_at=wake_at))
                if not self._nap(walk, hold, left):
                    return
            else:
                return self._complete(walk, hold)

    # -- one node

    def _step(self, walk: Walk, hold: Hold, node: Node) -> bool:
        """Start ``node``, call it and note its outcome; False where the run was let go."""
        scope = walk.scope(node)
        rendered, refusal = self._render(node, scope)
        recorded = None
        if rendered is not None:
            try:
                kept = self.kinds[node.kind].record(rendered)
                recorded = (
                    dumps(kept, "input", max_bytes=self.limits.output_max_bytes) if kept else None
                )
            except ValueRefused as error:
                refusal = Failed(error.message, retryable=False)
        start = walk.start(node, recorded)
        verdict = self._write(walk, hold, start=start)
        if verdict.answer != "go" or verdict.started_at is None:
            self._stop(walk, hold, verdict)
            return False
        walk.started(start)
        context = Context(
            run_id=hold.claimed.id,
            step_id=step_id(hold.claimed.id, start.seq),
            node_id=node.id,
            attempt=start.attempt,
            config=node.config,
            input=rendered or {},
            scope=scope,
            handles=walk.handles(node),
            started_at=verdict.started_at,
            idempotency_key=walk.idempotency_key(node.id, step_id(hold.claimed.id, start.seq)),
            stop=hold.stop,
            limits=self.limits,
        )
        outcome = refusal or self._call(context, node, hold)
        return self._note(walk, hold, node, context, start.seq, outcome)

    def _render(
        self, node: Node, scope: Mapping[str, Any]
    ) -> tuple[dict[str, Any] | None, Failed | None]:
        for lack in self.kinds[node.kind].missing(node.config):
            return None, Failed(f"{lack.field}: {lack.message}", retryable=False)
        bound = self.kinds[node.kind].bound
        wanted = {name: node.config[name] for name in bound if name in node.config}
        try:
            return (render(wanted, scope) if wanted else {}), None
        except ExpressionError as error:
            return None, Failed(error.message, retryable=False)

    def _call(self, context: Context, node: Node, hold: Hold) -> Outcome:
        # The last look before a side effect: news of a cancel may have come since the boundary.
        if hold.stop.is_set():
            return Interrupted("the run was stopped before this node began its work")
        try:
            return self.kinds[node.kind].run(context)
        except Exception as error:  # whatever a handler raises fails its own node only
            log.exception("a node raised", extra=_of(hold, node, context.step_id))
            return Failed(f"{type(error).__name__}: {error}")

    def _note(
        self, walk: Walk, hold: Hold, node: Node, context: Context, seq: int, outcome: Outcome
    ) -> bool:
        """Note the outcome for the next boundary; False where it ended the run."""
        limit = self.limits.output_max_bytes
        if isinstance(outcome, Interrupted) and not hold.stop.is_set():
            outcome = Failed(outcome.detail, output=outcome.output)
        try:
            text = dumps(outcome.output, "output", max_bytes=limit) if outcome.output else None
        except ValueRefused as error:
            outcome, text = Failed(error.message, retryable=False), None
        if isinstance(outcome, Done):
            walk.done(node, seq, text or "{}", outcome.branch)
        elif isinstance(outcome, SleepUntil):
            walk.asleep(
                node, Sleeper(seq, context.started_at, outcome.until, outcome.output, stored=False)
            )
        elif isinstance(outcome, Failed):
            return self._failed(walk, hold, node, seq, outcome, text)
        else:
            return self._interrupted(walk, hold, node, seq, outcome, text)
        return True

    def _failed(
        self, walk: Walk, hold: Hold, node: Node, seq: int, outcome: Failed, text: str | None
    ) -> bool:
        error = outcome.error.replace("\x00", "").encode(errors="replace").decode()[:10_000]
        log.info("node failed", extra={**_of(hold, node), "error": error})
        attempts, retry = walk.attempt(node.id), node.config.get("retry") or {}
        if outcome.retryable and attempts < (retry.get("maxAttempts") or 1):
            base = retry.get("backoffSeconds")
            wait = backoff(attempts, base=BASE_SECONDS if base is None else base)
            walk.failed(node, seq, error, text, self.clock.now() + timedelta(seconds=wait))
            return True
        walk.failed_for_good(node, seq, outcome, error, text)
        self._end_attempt(walk, hold, f"node {node.id} failed: {error}", outcome.retryable)
        return False

    def _interrupted(
        self, walk: Walk, hold: Hold, node: Node, seq: int, outcome: Interrupted, text: str | None
    ) -> bool:
        reason = hold.stop.reason
        if reason == "timeout":
            walk.interrupted(node, seq, FAILED, f"timed out: {outcome.detail}", text)
            self._fail(walk, hold, self._timeout_error(hold))
        elif reason == "shutdown":
            walk.interrupted(node, seq, FAILED, EXECUTOR_STOPPED, text)
            self._release(walk, hold)
        else:
            walk.interrupted(node, seq, CANCELLED, f"interrupted: {outcome.detail}", text)
            self._stop(walk, hold, self._write(walk, hold))
        return False

    def _wake(self, walk: Walk) -> None:
        while (node_id := walk.due_sleeper(now := self.clock.now())) is not None:
            sleeper = walk.sleepers[node_id]
            waited = max(0, round((now - sleeper.started_at).total_seconds() * 1000))
            output = {**sleeper.output, "waitedMs": waited}
            limit = self.limits.output_max_bytes
            walk.woken(node_id, dumps(output, "output", max_bytes=limit))

    # -- the ways in which a claim ends

    def _complete(self, walk: Walk, hold: Hold) -> None:
        output = walk.output()
        try:
            text = dumps(output, "output", max_bytes=self.limits.output_max_bytes)
        except ValueRefused as error:
            return self._fail(walk, hold, error.message)
        return self._finish(walk, hold, Move(lifecycle.COMPLETE.name, output=text))

    def _end_attempt(self, walk: Walk, hold: Hold, error: str, retryable: bool) -> None:
        """An attempt has failed: back off before the next one, or fail the run."""
        attempt = hold.claimed.attempt_count
        if retryable and attempt < hold.claimed.max_attempts:
            move = Move(lifecycle.BACKOFF.name, error=error, wait=backoff(attempt))
            self._finish(walk, hold, move)
        else:
            self._fail(walk, hold, error)

    def _fail(self, walk: Walk, hold: Hold, error: str) -> None:
        walk.close_sleepers("the run failed while this node slept")
        self._finish(walk, hold, Move(lifecycle.FAIL.name, error=error))

    def _finish(self, walk: Walk, hold: Hold, move: Move) -> None:
        """Make the move that ends this claim, unless the run was stopped meanwhile."""
        verdict = self._write(walk, hold, move=move)
        if verdict.answer != "go":
            self._stop(walk, hold, verdict)
        else:
            log.info("run %s", move.action, extra={**_of(hold), "error": move.error})

    def _release(self, walk: Walk, hold: Hold) -> None:
        """This process ends: give the run back, due at once."""
        verdict = self._write(walk, hold)
        if verdict.answer == "timed_out":
            return self._stop(walk, hold, verdict)
        if verdict.answer != "lease_lost":
            self._let_go(walk, hold)
        return None

    def _stop(self, walk: Walk, hold: Hold, verdict: Verdict) -> None:
        """The database said not to go on: tidy the trace and give the run back."""
        if verdict.answer == "timed_out":
            return self._fail(walk, hold, self._timeout_error(hold))
        if verdict.answer == "lease_lost":
            log.warning("the lease was lost", extra=_of(hold))
            return None
        log.info("run stopped", extra={**_of(hold), "status": verdict.status})
        return self._let_go(walk, hold)

    def _give_up(self, hold: Hold, error: str) -> None:
        claimed = hold.claimed
        self.writer.run(lambda c: leases.close_all(c, claimed.id, claimed.token, error))
        move = Move(lifecycle.FAIL.name, error=error)
        verdict = self.writer.write(
            Boundary(claimed.id, claimed.metronome_id, claimed.token, move=move)
        )
        if verdict.answer == "stopped":
            self.writer.run(lambda c: leases.let_go(c, claimed.id, claimed.token))

    def _let_go(self, walk: Walk, hold: Hold) -> None:
        run_id, token, nexts = hold.claimed.id, hold.claimed.token, walk.nexts()
        self.writer.run(
            lambda connection: leases.let_go(
                connection, run_id, token, nexts=nexts, error="interrupted: the run was cancelled"
            )
        )

    def _nap(self, walk: Walk, hold: Hold, seconds: float) -> bool:
        """Wait for a short sleep to end, or for news of the run; False where it was let go."""
        if walk.pending.ends:  # what has ended is in the trace before anybody waits
            verdict = self._write(walk, hold)
            if verdict.answer != "go":
                self._stop(walk, hold, verdict)
                return False
            return True
        hold.look.wait(max(0.0, seconds))
        return not hold.look.is_set() or self._still_ours(walk, hold)

    def _still_ours(self, walk: Walk, hold: Hold) -> bool:
        """Ask the database in the middle of a short sleep; False where the run was let go."""
        hold.look.clear()
        if hold.stop.reason == "timeout":
            self._fail(walk, hold, self._timeout_error(hold))
            return False
        held = [(hold.claimed.id, hold.claimed.token)]
        statuses = self.writer.run(lambda connection: leases.statuses(connection, held))
        if statuses.get(hold.claimed.id) == lifecycle.RUNNING:
            return True
        self._stop(walk, hold, self._write(walk, hold))
        return False

    def _timeout_error(self, hold: Hold) -> str:
        return "the run timed out: its timeoutMs has passed since it started"

    # -- the database

    def _write(
        self, walk: Walk, hold: Hold, *, start: StepStart | None = None, move: Move | None = None
    ) -> Verdict:
        skips = walk.skips()
        pending = walk.take_pending()
        boundary = Boundary(
            run_id=hold.claimed.id,
            metronome_id=hold.claimed.metronome_id,
            token=hold.claimed.token,
            ends=pending.ends,
            sleeps=pending.sleeps,
            starts=[*skips, start] if start else skips,
            move=move,
        )
        return self.writer.write(boundary)

    def _restore(self, hold: Hold) -> Walk:
        claimed = hold.claimed
        graph = self.graphs(claimed.version_id)
        trail: list[steps.Trail] = []
        if claimed.lost:
            self.writer.run(lambda c: leases.close_lost(c, claimed.id, claimed.token))
        if claimed.begun:
            trail = self.writer.run(lambda c: steps.trail(c, claimed.id))
        return Walk(claimed, graph, trail)


def _of(hold: Hold, node: Node | None = None, step: str | None = None) -> dict[str, Any]:
    """The ids that belong into a log line."""
    ids = {"runId": hold.claimed.id, "metronomeId": hold.claimed.metronome_id}
    if node is not None:
        ids["nodeId"] = node.id
    if step is not None:
        ids["stepId"] = step
    return ids
