"""One claim of one run: what it writes to the database, and the ways in which it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from app.clock import DatabaseClock
from app.domain import lifecycle
from app.domain.graph import Node
from app.domain.outcomes import Failed, Spawn
from app.domain.retry import backoff
from app.engine.frames import Frame, Loop, Parked
from app.engine.holds import Hold
from app.engine.nested import Nested
from app.engine.pending import Pending
from app.engine.walk import Walk
from app.engine.writer import GaveUp, Writer
from app.nodes.base import NodeKind, NodeLimits
from app.store import boundary, leases, steps
from app.store.boundary import Boundary, Move, StepStart, Verdict
from app.store.leases import IN_DOUBT

log = logging.getLogger(__name__)

TIMED_OUT = "the run timed out: its timeoutMs has passed since it started"
_ENDING = (lifecycle.COMPLETE.name, lifecycle.FAIL.name)


class Course:
    """A held run and its walk; every method that answers None or False has let go of it."""

    def __init__(
        self,
        hold: Hold,
        walk: Walk,
        *,
        writer: Writer,
        nested: Nested,
        clock: DatabaseClock,
        kinds: Mapping[str, NodeKind],
        limits: NodeLimits,
    ) -> None:
        self.hold = hold
        self.walk = walk
        self.clock = clock
        self.kinds = kinds
        self.limits = limits
        self.claimed = hold.claimed
        # how the interpreter ends what has news: set by it, since it knows how to make an outcome
        self.settle: Callable[[Frame], None] = lambda top: None
        self._writer = writer
        self._nested = nested

    def start(self, step: StepStart) -> Verdict | None:
        """Begin a step; None where the run has to stop."""
        verdict = self._write(start=step)
        if verdict.answer == "go" and verdict.started_at is not None:
            return verdict
        self._stop(verdict)
        return None

    def flush(self) -> bool:
        """Write what has happened; False where the run has to stop."""
        verdict = self._write()
        if verdict.answer != "go":
            self._stop(verdict)
            return False
        return True

    def tell(self) -> bool:
        """Write what has ended in a run that can't go on; False where it was let go instead."""
        ends = self.walk.take_pending().ends
        self.walk.pending = Pending(ends)  # nothing else begins or waits any more
        try:
            return self.flush()
        except GaveUp:
            raise
        except Exception:  # then it is lost: the run must not be claimed again and again
            log.exception("what has ended can't be written", extra=of(self.hold))
            return True

    def still_ours(self) -> bool:
        """Ask the database in the middle of a short sleep; False where the run was let go."""
        self.hold.look.clear()
        if self.hold.stop.reason == "timeout":
            self.fail(TIMED_OUT)
            return False
        held = [(self.claimed.id, self.claimed.token)]
        statuses = self._writer.run(lambda connection: leases.statuses(connection, held))
        if statuses.get(self.claimed.id) == lifecycle.RUNNING:
            return True
        self._stop(self._write())
        return False

    # -- nested runs and loops

    def prepare_nested(self, wanted: Spawn, seq: int) -> boundary.Spawn | Failed:
        """The run that the step ``seq`` is to start, or why it can't."""
        return self._nested.prepare(self.claimed, wanted, seq)

    def look_again(self, parked: Parked) -> None:
        """Take over the news of a parked node that have come since the run was claimed."""
        self._nested.hear([parked])
        if parked.result is None and parked.metadata.get("waitsFor") in ("approval", "callback"):
            run_id, seq = self.claimed.id, parked.seq
            found = self._writer.run(lambda c: steps.news(c, run_id, seq))
            if found is not None:
                text, parked.wake_at = found
                parked.result = None if text is None else orjson.loads(text)

    def hear(self, waiting: Sequence[Parked]) -> None:
        """Give all that wait the news that have come since the run was claimed."""
        self._nested.hear(waiting)
        for parked in waiting:
            if parked.result is None:
                self.look_again(parked)

    def end_waits(self, top: Frame) -> None:
        """Nobody will wait any more for what is parked in a frame and below it.

        Nested runs are cancelled. What has ended by then has ended: that is in the trace, and a
        retry behind the finished steps does not do it again.
        """
        stored = [p for frame in top.below() for p in frame.parked.values() if p.stored]
        self.cancel_nested([p.seq for p in stored if "childRunId" in p.metadata])
        self.hear(stored)
        self.settle(top)

    def cancel_nested(self, seqs: Sequence[int]) -> None:
        """Nobody waits any more for the nested runs of these steps."""
        self._nested.cancel(self.claimed, seqs)

    def iteration_outputs(
        self, loop: Loop, nodes: Sequence[str], max_bytes: int
    ) -> list[tuple[int, str, str]]:
        """What ``nodes`` answered in each iteration of a loop: see store/steps.py."""
        seqs = (*loop.earlier, loop.seq)
        run_id = self.claimed.id
        return self._writer.run(
            lambda c: steps.iteration_outputs(c, run_id, seqs, nodes, max_bytes=max_bytes)
        )

    # -- the ways in which a claim ends

    def complete(self, output: str) -> None:
        """Every node has ended; ``output`` is JSON text."""
        self._finish(Move(lifecycle.COMPLETE.name, output=output))

    def park(self) -> None:
        """Nothing can go on before a time has come, or somebody has said something."""
        action = lifecycle.AWAIT_APPROVAL if self.walk.awaits_approval() else lifecycle.SLEEP
        self._finish(Move(action.name, wake_at=self.walk.next_wake()))

    def end_attempt(self, error: str, retryable: bool) -> None:
        """An attempt has failed: back off before the next one, or fail the run."""
        attempt = self.claimed.attempt_count
        if retryable and attempt < self.claimed.max_attempts:
            self._finish(Move(lifecycle.BACKOFF.name, error=error, wait=backoff(attempt)))
        else:
            self.fail(error)

    def fail(self, error: str) -> None:
        """The run fails, and whatever waits in it ends."""
        if self.walk.has_nested():
            # Why it fails is in the trace before nested runs end: whoever takes it over must know.
            verdict = self._write()
            if verdict.answer in ("stopped", "lease_lost"):
                return self._stop(verdict)
        for frame in self.walk.frames():  # should a cancel come first, it is not what was next
            frame.stopped.update(frame.parked, frame.loops)
        self.end_waits(self.walk.top)
        self.walk.close(self.walk.top, "the run failed while this node waited")
        return self._finish(Move(lifecycle.FAIL.name, error=error))

    def doubt(self, node_id: str) -> None:
        """A node may have run, and running it again may do harm: a person is asked."""
        log.warning("run in doubt", extra={**of(self.hold), "nodeId": node_id})
        self._finish(Move(lifecycle.DOUBT.name, error=IN_DOUBT.format(node=node_id)))

    def release(self) -> None:
        """This process ends: give the run back, due at once."""
        verdict = self._write()
        if verdict.answer == "timed_out":
            return self._stop(verdict)
        if verdict.answer != "lease_lost":
            self._let_go()
        return None

    def stop(self) -> None:
        """A node was interrupted since its run stopped."""
        self._stop(self._write())

    def _finish(self, move: Move) -> None:
        """Make the move that ends this claim, unless the run was stopped meanwhile."""
        verdict = self._write(move=move)
        if verdict.answer != "go":
            self._stop(verdict)
        else:
            log.info("run %s", move.action, extra={**of(self.hold), "error": move.error})

    def _stop(self, verdict: Verdict) -> None:
        """The database said not to go on: tidy the trace and give the run back."""
        if verdict.answer == "timed_out":
            return self.fail(TIMED_OUT)
        if verdict.answer == "lease_lost":
            log.warning("the lease was lost", extra=of(self.hold))
            return None
        log.info("run stopped", extra={**of(self.hold), "status": verdict.status})
        return self._let_go()

    def _let_go(self) -> None:
        claimed, nexts = self.claimed, self.walk.nexts()
        self._writer.run(
            lambda connection: leases.let_go(
                connection,
                claimed.id,
                claimed.token,
                nexts=nexts,
                base_seq=claimed.base_seq,
                error="interrupted: the run was stopped",
            )
        )

    def _write(self, *, start: StepStart | None = None, move: Move | None = None) -> Verdict:
        rides, skips = self.walk.rides.take(), self.walk.skips()
        pending = self.walk.take_pending()
        claimed = self.claimed
        touches: list[str] = []
        if claimed.parent_run_id and move is not None and move.action in _ENDING:
            touches.append(claimed.parent_run_id)
        if claimed.root_run_id and pending.spawns and claimed.root_run_id not in touches:
            touches.append(claimed.root_run_id)
        verdict = self._writer.write(
            Boundary(
                run_id=claimed.id,
                metronome_id=claimed.metronome_id,
                token=claimed.token,
                ends=pending.ends,
                parks=pending.parks,
                starts=[*rides, *skips, start] if start else [*rides, *skips],
                spawns=pending.spawns,
                move=move,
                touches=touches,
            )
        )
        if verdict.answer == "go":
            self.walk.rides.before = None
        if pending.spawns:
            self._nested.began(pending.spawns)
        return verdict


def give_up(writer: Writer, hold: Hold, error: str) -> None:
    """A run that can't be walked fails, and everything that is open in it."""
    claimed = hold.claimed
    writer.run(lambda c: leases.close_all(c, claimed.id, claimed.token, error))
    verdict = writer.write(
        Boundary(
            claimed.id,
            claimed.metronome_id,
            claimed.token,
            move=Move(lifecycle.FAIL.name, error=error),
            touches=[claimed.parent_run_id] if claimed.parent_run_id else [],
        )
    )
    if verdict.answer == "stopped":
        writer.run(lambda c: leases.let_go(c, claimed.id, claimed.token))


def of(hold: Hold, node: Node | None = None, step: str | None = None) -> dict[str, Any]:
    """The ids that belong into a log line."""
    ids = {"runId": hold.claimed.id, "metronomeId": hold.claimed.metronome_id}
    if node is not None:
        ids["nodeId"] = node.id
    if step is not None:
        ids["stepId"] = step
    return ids
