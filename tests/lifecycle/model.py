"""What ought to become of a forest of runs, by the lifecycle table: the model of these tests.

It knows nothing of SQL and of locks: one thing happens after the other, and each is a method. Times
are no more than a relation to now: ``NONE``, ``NOW`` (or before), ``LATER``, ``NEVER`` (infinity).
What people do to trees is in ``requests.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from app.domain.lifecycle import (
    AWAIT_APPROVAL,
    BACKOFF,
    CANCELLED,
    CLAIM,
    CLAIMABLE,
    COMPLETED,
    DOUBT,
    FAILED,
    MOVES,
    OPEN_STEP,
    PAUSED,
    QUEUED,
    RUNNING,
    SLEEP,
    TERMINAL,
    WAITING_APPROVAL,
)
from app.store.boundary import Boundary
from app.store.leases import EXECUTOR_LOST, EXECUTOR_STOPPED, NextNode

NONE, NOW, LATER, NEVER = "none", "now", "later", "never"
PARKING = (SLEEP.name, AWAIT_APPROVAL.name)
LOST = (EXECUTOR_LOST, EXECUTOR_STOPPED)
_MOVES = {move.name: move for move in MOVES}


@dataclass
class ModelStep:
    """One step; ``token`` is the claim under which its node is in flight."""

    seq: int
    status: str = RUNNING
    token: str | None = None
    wake: str = NONE
    unsafe: bool = False
    connector: bool = False
    told: bool = False  # a decision or a callback has come
    child: str | None = None  # the nested run that it waits for
    lost: bool = False  # nobody knows whether its node has run

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.status in OPEN_STEP

    @property
    def parked(self) -> bool:
        """Whether it is open and nobody is in flight in it."""
        return self.open and self.token is None

    def end(self, status: str) -> None:
        """It has ended."""
        self.status, self.token, self.wake = status, None, NONE


@dataclass
class ModelRun:
    """One run; ``unsure`` holds the steps of which nobody knows whether they have run (P7)."""

    id: str
    parent: str | None = None
    depth: int = 0
    status: str = QUEUED
    token: str | None = None
    due: str = NOW
    wake: str = NONE  # next_attempt_at
    deadline: str = NONE
    timeout: bool = False
    started: bool = False
    signalled: bool = False
    in_doubt: bool = False
    paused_by: str | None = None
    attempt_due: bool = True
    attempts: int = 0
    max_attempts: int = 1
    takeovers: int = 0
    progressed: bool = False  # a node has ended well since the last claim
    base_seq: int = 0
    confirmed_seq: int = 0
    steps: dict[int, ModelStep] = field(default_factory=dict)
    unsure: set[int] = field(default_factory=set)
    audits: list[str] = field(default_factory=list)

    def open_steps(self) -> list[ModelStep]:
        """The steps that have not ended."""
        return [step for step in self.steps.values() if step.open]

    def counts(self, step: ModelStep) -> bool:
        """Whether what has come for a step is still heard."""
        return step.told and self.status not in TERMINAL and step.seq > self.base_seq

    def confirm(self) -> None:
        """A person has agreed to run again what was lost up to now."""
        self.confirmed_seq = max(self.confirmed_seq, *self.steps, 0)
        self.unsure.clear()

    def doubts(self) -> list[ModelStep]:
        """The steps that were lost, may do harm when run again, and nobody was asked about."""
        asked = max(self.base_seq, self.confirmed_seq)
        return [one for one in self.steps.values() if one.lost and one.unsafe and one.seq > asked]

    def wakes(self) -> None:
        """Something has happened that a parked step waits for."""
        self.signalled = True
        if self.token is None and self.status in (RUNNING, WAITING_APPROVAL):
            self.due = NOW


class Forest:
    """Runs by id, and what connectors are to be told: (run, seq, event), counted."""

    def __init__(self) -> None:
        self.runs: dict[str, ModelRun] = {}
        self.outbox: Counter[tuple[str, int, str]] = Counter()

    def add(self, run: ModelRun) -> ModelRun:
        """A new run."""
        self.runs[run.id] = run
        return run

    def below(self, run: ModelRun) -> Iterator[ModelRun]:
        """All runs below ``run``."""
        for child in [one for one in self.runs.values() if one.parent == run.id]:
            yield child
            yield from self.below(child)

    def tree(self, run_id: str) -> list[ModelRun]:
        """The run, and all below it."""
        run = self.runs[run_id]
        return [run, *self.below(run)]

    def above(self, run: ModelRun) -> list[ModelRun]:
        """The runs above ``run``, the root first."""
        if run.parent is None:
            return []
        parent = self.runs[run.parent]
        return [*self.above(parent), parent]

    def tell(self, run: ModelRun, step: ModelStep, event: str) -> None:
        """A connector that works at the step is to be told."""
        if step.connector:
            self.outbox[run.id, step.seq, event] += 1

    def has_news(self, step: ModelStep) -> bool:
        """Whether a parked step has something to go on with."""
        child = None if step.child is None else self.runs[step.child]
        ended = child is not None and child.status in TERMINAL
        return step.parked and (step.told or step.wake == NOW or ended)

    # -- executors

    def due(self) -> list[ModelRun]:
        """What an executor may take now."""
        runs = self.runs.values()
        return [run for run in runs if run.status in CLAIM.sources and run.due == NOW]

    def claim(self, run_id: str, token: str) -> bool:
        """An executor takes a due run; whether its last holder was lost."""
        run = self.runs[run_id]
        assert run in self.due(), run
        lost = run.token is not None
        if lost:  # what was in flight before a retry from the start belongs to nobody else
            for step in run.open_steps():
                if step.token is not None and step.seq <= run.base_seq:
                    step.end(FAILED)
                    self.tell(run, step, "node.cancelled")
        run.status, run.token, run.due, run.wake = CLAIM.target, token, LATER, NONE
        run.started, run.signalled = True, False
        if run.timeout and run.deadline == NONE:
            run.deadline = LATER
        run.attempts += run.attempt_due
        run.attempt_due = False
        if lost:
            run.takeovers = 1 if run.progressed else run.takeovers + 1
        run.progressed = False
        return lost

    def disown(self, run_id: str, token: str) -> None:
        """The new holder takes the steps from the lost one."""
        run = self.runs[run_id]
        for step in run.open_steps() if run.token == token else []:
            step.token = None if step.token is None else token

    def write(self, one: Boundary) -> str:
        """The node boundary; its answer."""
        run = self.runs[one.run_id]
        ours, status = run.token == one.token, run.status
        late = run.deadline == NOW
        goes = ours and status == RUNNING and not late
        ending = {end.seq for end in one.ends}
        for end in one.ends:
            step = run.steps[end.seq]
            if step.open and (ours or step.token == one.token):
                step.end(end.status)
                run.progressed |= end.status == COMPLETED
                if end.tell:
                    self.tell(run, step, "node.cancelled")
                self._lost(run, step, end.error in LOST)
        spawning = {spawn.seq: spawn.run_id for spawn in one.spawns}
        for park in one.parks:
            step = run.steps[park.seq]
            if park.seq in ending or not step.open or step.token not in (None, one.token):
                continue
            # a step that a cancel and a retry have left in flight is not a part of what comes
            stays = ours and status not in TERMINAL and run.started
            if stays and (goes or park.seq not in spawning):
                step.status, step.token = park.status, None
                step.wake = NONE if park.wake_at is None else LATER
                step.child = spawning.get(park.seq)
                if status == PAUSED and park.tell:
                    self.tell(run, step, "node.paused")
        for start in one.starts:
            if goes or (ours and status == RUNNING and start.status != RUNNING):
                in_flight = start.status == RUNNING
                run.steps[start.seq] = ModelStep(
                    start.seq,
                    start.status,
                    one.token if in_flight else None,
                    unsafe=start.unsafe,
                    connector=start.connector is not None,
                )
        if goes:
            for spawn in one.spawns:
                child = ModelRun(spawn.run_id, run.id, run.depth + 1, audits=["run.created"])
                self.add(child)
        move = None if one.move is None else _MOVES[one.move.action]
        parks = move is not None and move.name in PARKING
        if not ours:
            return "lease_lost"
        if status not in (move.sources if move else (RUNNING,)):
            return "stopped"
        if late and (move is None or parks):
            return "timed_out"
        if move is not None and one.move is not None:
            self._move(run, move.name, waits=one.move.wake_at is not None)
        return "go"

    def _move(self, run: ModelRun, name: str, *, waits: bool) -> None:
        move = _MOVES[name]
        run.status, run.token, run.takeovers = move.target, None, 0
        run.attempt_due = move is BACKOFF
        run.in_doubt = move is DOUBT
        run.paused_by = (run.paused_by or run.id) if move is DOUBT else None
        run.wake = run.due = NONE
        if move is BACKOFF:
            run.due, run.wake = (NOW if run.deadline == NOW else LATER), LATER
        elif name in PARKING:
            run.wake = LATER if waits else NONE
            run.due = LATER if waits or run.deadline == LATER else NEVER
            if run.signalled:
                run.due = NOW
        if run.status in TERMINAL:
            run.unsure.clear()
            self.hear_of_end(run)

    def hear_of_end(self, run: ModelRun) -> None:
        """A run has ended: the one above it has something to look at."""
        if run.parent is not None and self.runs[run.parent].status not in TERMINAL:
            self.runs[run.parent].wakes()

    def let_go(
        self, run_id: str, token: str, nexts: Sequence[NextNode], *, unfinished: bool
    ) -> str | None:
        """The holder gives the run back, without a move."""
        run = self.runs[run_id]
        if run.token != token:
            return None
        cancelled = run.status == CANCELLED
        doubtful = self._close(run, CANCELLED if cancelled else FAILED, lost=unfinished)
        if cancelled:
            for node in nexts:
                run.steps[node.seq] = ModelStep(node.seq, CANCELLED)
        run.token = None
        self._doubt(run, doubtful)
        run.due = NOW if run.status in CLAIMABLE else NONE
        return run.status

    def _close(self, run: ModelRun, status: str, *, lost: bool) -> bool:
        """Nobody is in flight any more; whether that leaves a doubt.

        What has news is parked, so that they are heard; of a cancelled run everything ends.
        """
        doubtful = False
        for step in run.open_steps():
            if run.counts(step):
                step.token = None
            elif step.token is not None or status == CANCELLED:
                doubtful |= self._lost(run, step, lost)
                step.end(status)
                self.tell(run, step, "node.cancelled")
        return doubtful

    def _lost(self, run: ModelRun, step: ModelStep, lost: bool) -> bool:
        step.lost = lost
        if lost and step.unsafe and step.seq > run.base_seq and run.status not in TERMINAL:
            run.unsure.add(step.seq)
            return True
        return False

    def _doubt(self, run: ModelRun, doubtful: bool) -> None:
        if doubtful and run.status in DOUBT.sources:
            run.status, run.in_doubt = PAUSED, True
            run.paused_by = run.paused_by or run.id

    def dead(self) -> set[str]:
        """The stopped runs whose holder died."""
        return {
            run.id
            for run in self.runs.values()
            if run.token is not None and run.status not in CLAIMABLE and run.due == NOW
        }

    def sweep(self, swept: set[str]) -> set[str]:
        """Stopped runs whose holder died are tidied up: those that were ``swept``."""
        dead = [self.runs[run_id] for run_id in swept & self.dead()]
        for run in dead:
            doubtful = self._close(run, FAILED, lost=True)
            run.token, run.due = None, NONE
            self._doubt(run, doubtful)
        return {run.id for run in dead}

    def renew(self, run_id: str, token: str) -> dict[str, str]:
        """A heartbeat; what it answers."""
        run = self.runs[run_id]
        if run.token != token:
            return {}
        run.due = LATER
        return {run_id: run.status}

    def close_all(self, run_id: str, token: str) -> None:
        """The holder can't go on: everything that is open ends."""
        run = self.runs[run_id]
        for step in run.open_steps() if run.token == token else []:
            step.end(FAILED)
            self.tell(run, step, "node.cancelled")

    # -- time

    def expire(self, run_id: str) -> None:
        """The times at which something is to happen in a run have come; its lease ends."""
        run = self.runs[run_id]
        if run.due == LATER:
            run.due = NOW
        if run.wake == LATER:
            run.wake = NOW
        for step in run.open_steps():
            if step.wake == LATER:
                step.wake = NOW

    def time_out(self, run_id: str) -> None:
        """The run's timeoutMs has passed."""
        run = self.runs[run_id]
        if run.deadline == LATER:
            run.deadline = NOW
            if run.token is None and run.due != NONE:
                run.due = NOW
