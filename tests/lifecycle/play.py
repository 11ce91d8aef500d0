"""Plays on the database and in the model at once, and compares; and the part of the executors.

The executors here write what ``app.engine`` would write in their place, but are in no hurry:
between any two of their deeds anything else may happen.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.domain.lifecycle import (
    AWAIT_APPROVAL,
    BACKOFF,
    CANCEL,
    CANCELLED,
    COMPLETE,
    COMPLETED,
    DOUBT,
    FAIL,
    FAILED,
    RUNNING,
    SLEEP,
    TERMINAL,
    WAITING_APPROVAL,
    Action,
)
from app.ids import new_id
from app.store.boundary import Move, Spawn, StepEnd, StepPark, StepStart
from app.store.leases import EXECUTOR_LOST, EXECUTOR_STOPPED, Claimed, NextNode
from tests.lifecycle import truth
from tests.lifecycle.deeds import (
    ENDS,
    SECRET,
    Claim,
    CloseAll,
    Deed,
    Disown,
    LetGo,
    Request,
    Sweep,
    Write,
    between,
    ended,
)
from tests.lifecycle.model import LATER, NOW, Forest, ModelRun, ModelStep
from tests.store.world import METRONOME, World

MAX_DEPTH = 3
MAX_RUNS = 9  # at the same time
# How a node leaves the thread: it has ended, or it waits.
WAITS = ("sleep", "deadline", "approval", "callback", "loop", "child")


@dataclass(frozen=True)
class Zombie:
    """An executor that has lost a run, and what it knows of that."""

    held: Claimed
    in_flight: tuple[int, ...]
    parked: tuple[int, ...]


class Play:
    """A database, the model of it, and those who hold runs; ``zombies`` once did."""

    def __init__(self, world: World, tell: Callable[[str], object] = len) -> None:
        self.world = world
        self.tell = tell  # called with each deed, in words
        self.raw = world.raw()
        self.forest = Forest()
        self.claims: dict[str, Claimed] = {}  # by token
        # by token, what was in the trace at the claim: steps with news, and those left by the lost
        self.news: dict[str, list[int]] = {}
        self.left: dict[str, list[int]] = {}
        self.zombies: list[Zombie] = []
        self._witness = truth.Witness(world)

    # -- both at once

    def put(self, *, timeout: bool = False, attempts: int = 2) -> ModelRun:
        """A new root."""
        limit = "3600000" if timeout else "NULL"
        run_id = self.world.put(max_attempts=str(attempts), timeout_ms=limit)
        return self.forest.add(ModelRun(run_id, timeout=timeout, max_attempts=attempts))

    def take(self, deed: Deed) -> Any:
        """Do something on the database and in the model: both answer the same."""
        said = deed.ask(self.world.db, self.raw)
        self.tell(brief(f"{deed} -> {said}"))
        expected = deed.expect(self.forest, said)
        assert said == expected, (deed, said, expected)
        return said

    def expire(self, run: ModelRun) -> None:
        """The times of a run have come."""
        self.forest.expire(run.id)
        later = "CASE WHEN {0} > clock_timestamp() THEN clock_timestamp() ELSE {0} END"
        wake = "wake_at = " + later.format("wake_at")
        due = later.format("due_at")
        self.world.execute(
            f"UPDATE runs SET next_attempt_at = {later.format('next_attempt_at')},"
            f" due_at = CASE WHEN due_at = 'infinity' THEN due_at ELSE {due} END WHERE id = %s",
            run.id,
        )
        self.world.execute(
            f"UPDATE steps SET {wake} WHERE run_id = %s AND completed_at IS NULL", run.id
        )

    def time_out(self, run: ModelRun) -> None:
        """The run's timeoutMs has passed."""
        if run.status in TERMINAL:
            return
        due = run.deadline == LATER and run.token is None
        self.forest.time_out(run.id)
        hurry = ", due_at = CASE WHEN due_at IS NOT NULL THEN clock_timestamp() END"
        self.world.execute(
            f"UPDATE runs SET deadline_at = clock_timestamp() {hurry if due else ''}"
            " WHERE id = %s AND deadline_at > clock_timestamp()",
            run.id,
        )

    def check(self) -> None:
        """The database is as the model, and as it always is."""
        wrong = truth.difference(truth.found(self.world), truth.predicted(self.forest))
        assert wrong == [], "\n".join(wrong)
        assert (found := truth.violations(self.world)) == [], found
        for runs in (truth.lost_wake_ups(self.forest), truth.unsaid_doubts(self.forest)):
            assert runs == [], runs
        self._witness.look()

    # -- who holds what

    def held(self) -> list[ModelRun]:
        """The runs that somebody holds."""
        return [run for run in self.forest.runs.values() if run.token is not None]

    def holder(self, run: ModelRun) -> Claimed:
        """The claim on a run."""
        assert run.token is not None
        return self.claims[run.token]

    def root(self, run: ModelRun) -> str:
        """The root of a run's tree."""
        return (
            self.forest.tree(run.id)[0].id if run.parent is None else self.forest.above(run)[0].id
        )

    def claim(self, limit: int = 99) -> list[ModelRun]:
        """An executor takes what is due, the longest due first."""
        due = {run.id for run in self.forest.due()}
        before = {row["id"]: row["due_at"] for row in self.world.query("SELECT * FROM runs")}
        lost = [(run, run.token) for run in self.held()]
        said: list[Claimed] = self.take(Claim(limit))
        taken = {one.id for one in said}
        assert taken <= due
        assert len(taken) == min(limit, len(due))
        assert all(before[one] <= before[other] for one in taken for other in due - taken)
        for run, token in lost:
            if token is not None and run.token != token:
                self._bury(run, self.claims[token])
        for one in said:
            self.know(one)
        return [self.forest.runs[one.id] for one in said]

    def know(self, claimed: Claimed) -> None:
        """An executor has read the trace of a run that it has claimed."""
        steps = self.forest.runs[claimed.id].steps.values()
        self.claims[claimed.token] = claimed
        left = [step for step in steps if step.token is not None]
        self.left[claimed.token] = [step.seq for step in left if not step.told]
        self.news[claimed.token] = [
            *(step.seq for step in left if step.told),
            *(step.seq for step in steps if self.forest.has_news(step)),
        ]
        if claimed.lost:
            self.take(Disown(claimed.id, claimed.token))

    def _bury(self, run: ModelRun, held: Claimed) -> None:
        steps = run.open_steps()
        flying = tuple(step.seq for step in steps if step.token == held.token)
        parked = tuple(step.seq for step in steps if step.parked)
        self.zombies.append(Zombie(held, flying, parked))

    def sweep(self) -> None:
        """An executor tidies up; those who held what it finds are lost."""
        holders = [(run, self.holder(run)) for run in self.held()]
        flying = {run.id: tuple(step.seq for step in run.open_steps()) for run, _ in holders}
        dead = self.forest.dead()
        assert self.take(Sweep()) == dead
        for run_id in dead:
            held = next(held for run, held in holders if run.id == run_id)
            self.zombies.append(Zombie(held, flying[run_id], ()))

    # -- the holder of a run, between two nodes

    def go_on(self, run: ModelRun, how: str, *, unsafe: bool = False, remote: bool = False) -> str:
        """The node in flight leaves by ``how``, and the next one starts."""
        if (left := self._doubtful(run)) is not None:
            return self.doubt(run, left)
        return self._finished(run, self.start(run, how, unsafe=unsafe, remote=remote))

    def start(
        self, run: ModelRun, how: str, *, unsafe: bool = False, remote: bool = False
    ) -> Write:
        """The boundary at which the node in flight leaves by ``how``, and the next one starts."""
        seq = self._next_seq(run)
        start = StepStart(
            *(seq, f"n{seq}", "end", 1),
            unsafe=unsafe,
            connector="imagine" if remote else None,
            callback_sha256=SECRET if remote else None,
        )
        return self.boundary(run, **self._left(run, how), starts=[start])

    def end_claim(self, run: ModelRun, move: Action, how: str) -> str:
        """The node in flight leaves by ``how``, and the run makes a move.

        A run that ends ends all that waits in it. One that parks does so as it has to: for an
        approval, where somebody is asked, or for a time; where nothing waits it completes.
        """
        if (left := self._doubtful(run)) is not None:
            return self.doubt(run, left)
        if move is DOUBT:
            return self.doubt(run, [step for step in run.open_steps() if step.token is not None])
        if move in (COMPLETE, FAIL):
            return self.finish(run, move)
        if move is BACKOFF:
            return self._write(run, move=_move(move), **self._left(run, FAILED))
        return self._finished(run, self.park(run, how))

    def park(self, run: ModelRun, how: str) -> Write:
        """The boundary at which the node in flight leaves by ``how``, and nothing can go on."""
        fields = self._left(run, how)
        gone = {end.seq for end in fields["ends"]}
        waits = {
            step.seq: (step.status, step.wake == LATER)
            for step in run.open_steps()
            if step.parked and step.seq not in gone
        }
        waits |= {park.seq: (park.status, park.wake_at is not None) for park in fields["parks"]}
        if not waits:
            return self.boundary(run, move=_move(COMPLETE), **fields)
        asks = any(status == WAITING_APPROVAL for status, _ in waits.values())
        wake_at = _later(self.holder(run)) if any(timed for _, timed in waits.values()) else None
        action = AWAIT_APPROVAL if asks else SLEEP
        return self.boundary(run, move=Move(action.name, wake_at=wake_at), **fields)

    def finish(self, run: ModelRun, move: Action) -> str:
        """The run ends, and whatever waits in it; nested runs are cancelled before."""
        self.cancel_children(run)
        return self._finished(run, self.end(run, move))

    def end(self, run: ModelRun, move: Action) -> Write:
        """The boundary at which the run ends, and whatever waits in it.

        What a cancel has closed meanwhile it ends once more, since it does not know.
        """
        status = COMPLETED if move is COMPLETE else CANCELLED
        ends = [
            ended(step.seq, FAILED if step.token else status, tell=step.connector)
            for step in run.steps.values()
        ]
        return self.boundary(run, ends=ends, move=_move(move))

    def give_up(self, run: ModelRun) -> None:
        """The run can't be walked."""
        held = self.holder(run)
        self.cancel_children(run)
        self.take(CloseAll(run.id, held.token))
        if self._write(run, move=_move(FAIL)) == "stopped":
            self.take(LetGo(run.id, held.token))

    def cancel_children(self, run: ModelRun) -> None:
        """Nobody waits any more for the runs below."""
        for child in list(self.forest.runs.values()):
            if child.parent == run.id and child.status not in TERMINAL:
                self.take(Request(CANCEL, child.id))

    def doubt(self, run: ModelRun, steps: list[ModelStep]) -> str:
        """Nodes were left behind, or interrupted, and may have run: a person is asked."""
        lost = self._lost(run)
        ends = [
            ended(
                step.seq,
                FAILED,
                EXECUTOR_LOST if step in lost else EXECUTOR_STOPPED,
                tell=step.unsafe,
            )
            for step in steps
        ]
        return self._write(run, ends=ends, move=_move(DOUBT))

    def let_go(self, run: ModelRun, *, unfinished: bool) -> None:
        """The holder gives the run back; ``unfinished``: it leaves its node behind."""
        held, seq = self.holder(run), self._next_seq(run)
        if not unfinished:  # what is to be told is told first
            if (left := self._doubtful(run)) is not None:
                self.doubt(run, left)
            else:
                self._write(run, **self._left(run, "stays"))
            if run.token is None:
                return
        following = NextNode(seq, "following", "end", 1)
        self.take(LetGo(run.id, held.token, (following,), unfinished))

    # -- parts of that

    def _next_seq(self, run: ModelRun) -> int:
        return max(run.steps, default=0) + 1

    def _lost(self, run: ModelRun) -> list[ModelStep]:
        left = self.left[self.holder(run).token]
        return [step for step in run.open_steps() if step.seq in left and step.token is not None]

    def _doubtful(self, run: ModelRun) -> list[ModelStep] | None:
        """The steps that a lost executor has left, where one may do harm when it runs again.

        A step that was lost before, and that nobody was asked about since, counts as well.
        """
        lost = self._lost(run)
        return lost if run.doubts() or any(step.unsafe for step in lost) else None

    def _left(self, run: ModelRun, how: str) -> dict[str, Any]:
        """How a boundary begins: the node in flight leaves, and what there is to hear is heard."""
        held, lost = self.holder(run), self._lost(run)
        ends: list[StepEnd] = [
            ended(step.seq, FAILED, EXECUTOR_LOST, tell=step.unsafe) for step in lost
        ]
        heard = self.news.pop(held.token, [])
        ends += [
            ended(step.seq, tell=False)
            for step in run.open_steps()
            if step.seq in heard or (step.parked and step.wake == NOW)
        ]
        parks: list[StepPark] = []
        spawns: list[Spawn] = []
        gone = {end.seq for end in ends}
        for step in run.open_steps():
            if step.token is None or step.seq in gone or how == "stays":
                continue
            if how == "child" and step.connector:  # it is one or the other
                how = "callback"
            if how in ENDS or (how == "child" and not self._may_spawn(run)):
                ends.append(ended(step.seq, how if how in ENDS else COMPLETED, tell=False))
                continue
            status = WAITING_APPROVAL if how in ("approval", "deadline") else RUNNING
            timed = how in ("sleep", "deadline")
            wake_at = _later(held) if timed else None
            parks.append(StepPark(step.seq, wake_at, status=status, tell=step.connector))
            if how == "child":
                child = new_id("run", after=run.id)
                spawns.append(Spawn(step.seq, child, METRONOME, "ver_a", "{}"))
        return {"ends": ends, "parks": parks, "spawns": spawns}

    def _may_spawn(self, run: ModelRun) -> bool:
        alive = [one for one in self.forest.runs.values() if one.status not in TERMINAL]
        return run.depth < MAX_DEPTH and len(alive) < MAX_RUNS

    def _write(self, run: ModelRun, **fields: Any) -> str:
        return self._finished(run, self.boundary(run, **fields))

    def _finished(self, run: ModelRun, deed: Write) -> str:
        answer: str = self.take(deed)
        if answer == "timed_out":  # nothing more can start: the run fails
            return self.finish(run, FAIL)
        return answer

    def boundary(self, run: ModelRun, **fields: Any) -> Write:
        """What the holder of a run writes."""
        return between(self.holder(run), self.root(run), **fields)


def brief(text: str) -> str:
    """A text without what is as always: it is read in a list of many."""
    for dull in _DULL:
        text = dull.sub("", text)
    return text


_DULL = [
    re.compile(r", \w+=(None|\[\]|\(\)|False|0)(?=[,)])"),
    re.compile(r", \w+=(datetime\.datetime\(.*?utc\)|'(org|ver|user|met)_a'|'manual'|'{}')"),
    re.compile(r", sources=\(.*?\)|, audit='[^']*'"),
]


def _later(held: Claimed) -> Any:
    return held.now.replace(year=2999)


def _move(action: Action) -> Move:
    return Move(
        action.name,
        error="it failed" if action in (FAIL, DOUBT, BACKOFF) else None,
        wait=3600.0 if action is BACKOFF else None,
    )
