"""Random people, executors and remote sides, for Hypothesis to play.

There is one rule, and a number that says all about its deed. So what is done next can depend on
what there is to do, and what is rare without that (a retry needs a run that has ended) is not.
Hypothesis takes deeds away from what fails until it is short, and then tells what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.db import Database
from app.domain.lifecycle import (
    APPROVE,
    AWAIT_APPROVAL,
    BACKOFF,
    CANCEL,
    COMPLETE,
    COMPLETED,
    DOUBT,
    FAIL,
    FAILED,
    MOVES,
    PAUSE,
    REJECT,
    RESUME,
    RETRY,
    TERMINAL,
    WAITING_APPROVAL,
    Action,
)
from app.ids import new_id
from app.store.boundary import Move, Spawn, StepPark, StepStart
from tests.lifecycle import truth
from tests.lifecycle.deeds import (
    STRANGER,
    CallBack,
    CloseAll,
    Decide,
    LetGo,
    Renew,
    Request,
    between,
    ended,
)
from tests.lifecycle.model import LATER, ModelRun, ModelStep
from tests.lifecycle.play import WAITS, Play, Zombie
from tests.store.world import ACTOR, METRONOME, World

T = TypeVar("T")

# How often each is done, where there is something to do; most of what is asked brings a run back to
# life, so that there is something left to stop.
ASKED = {CANCEL: 3, PAUSE: 4, RESUME: 4, RETRY: 4}
LEAVES = {COMPLETED: 4, FAILED: 1, "stays": 1, **dict.fromkeys(WAITS, 2), "child": 4}
ENDINGS = {COMPLETE: 1, FAIL: 2, BACKOFF: 4, AWAIT_APPROVAL: 8, DOUBT: 2}
TABLES = ("runs", "steps", "audit_events", "outbox")


class Lifecycle(RuleBasedStateMachine):
    """A forest of runs in which anything may come next."""

    database: Database
    roots: int = 3  # runs to begin with

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.database)
        self.random = Random(0)
        # what may come next: how often, whether there is something to do, and what
        self.deeds: dict[str, tuple[int, Callable[[], object], Callable[[], object]]] = {
            "request": (18, lambda: True, self.request),
            "decide": (12, lambda: self.steps(WAITING_APPROVAL), self.decide),
            "call back": (9, lambda: self.steps("remote"), self.call_back),
            "strangers": (1, lambda: True, self.strangers_see_and_change_nothing),
            "begin": (6, lambda: len(self.alive()) < 3, self.queue),
            "claim": (16, lambda: self.play.forest.due(), self.claim),
            "go on": (30, lambda: self.play.held(), self.go_on),
            "end a claim": (14, lambda: self.play.held(), self.end_claim),
            "hold": (6, lambda: self.play.held(), self.hold),
            "sweep": (6, lambda: self.play.forest.dead(), self.sweep),
            "time passes": (8, lambda: True, self.time_passes),
            "time is up": (3, lambda: self.in_time(), self.time_is_up),
            "zombie": (5, lambda: self.play.zombies, self.zombie),
        }

    def teardown(self) -> None:
        self.world.close()

    @initialize()
    def begin(self) -> None:
        """A few queued runs and nothing else."""
        for table in TABLES:
            self.world.execute(f"DELETE FROM {table}")
        self.play = Play(self.world, note)
        for number in range(self.roots):
            self.play.put(timeout=number == 0)

    @rule(number=st.integers(0, 2**32 - 1))
    def somebody_does_something(self, number: int) -> None:
        """Whatever comes next."""
        self.random.seed(number)
        able = {name: often for name, (often, may, _) in self.deeds.items() if may()}
        name = self.one(able)
        note(f"-- {name}")
        self.deeds[name][2]()

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        """After each of these."""
        self.play.check()

    # -- what there is

    def one(self, weighted: dict[T, int]) -> T:
        """One of these, by weight."""
        return self.random.choices(list(weighted), list(weighted.values()))[0]

    def runs(self, *, held: bool = False) -> list[ModelRun]:
        """All runs, or those that somebody holds."""
        return self.play.held() if held else list(self.play.forest.runs.values())

    def run_for(self, action: Action) -> ModelRun:
        """Mostly a run that allows the action."""
        allowing = [run for run in self.runs() if run.status in action.sources]
        if action is RETRY:
            allowing += [run for run in self.runs() if run.in_doubt]
            allowing = [run for run in allowing if run.parent is None]
        return self.random.choice(
            self.runs() if self.random.random() < 0.2 else allowing or self.runs()
        )

    def steps(self, kind: str) -> list[tuple[ModelRun, ModelStep]]:
        """The steps that somebody outside may have something to say to, or had."""
        return [
            (run, step)
            for run in self.runs()
            for step in run.steps.values()
            if (step.connector if kind == "remote" else step.status == kind)
        ]

    def step(self, kind: str) -> tuple[ModelRun, ModelStep]:
        """One of them, mostly one that waits for that."""
        found = self.steps(kind)
        waiting = [(run, step) for run, step in found if step.parked and not step.told]
        return self.random.choice(waiting if waiting and self.random.random() < 0.8 else found)

    def alive(self) -> list[ModelRun]:
        """The runs that have not ended."""
        return [run for run in self.runs() if run.status not in TERMINAL]

    def in_time(self) -> list[ModelRun]:
        """The runs that can run out of time."""
        return [run for run in self.alive() if run.deadline == LATER]

    # -- people

    def queue(self) -> None:
        """Somebody starts a run."""
        self.play.put(timeout=self.random.random() < 0.5)

    def request(self) -> None:
        """Somebody asks for an action; what changes nothing leaves every byte as it is."""
        play, action = self.play, self.one(ASKED)
        kind = self.random.random() < 0.5
        deed = Request(action, self.run_for(action).id, confirm=kind, afresh=kind)
        before, model = self.world.everything(), truth.predicted(play.forest)
        play.take(deed)
        if truth.predicted(play.forest) == model:
            assert self.world.everything() == before

    def decide(self) -> None:
        """Somebody approves or rejects."""
        run, step = self.step(WAITING_APPROVAL)
        action = self.random.choice([APPROVE, REJECT])
        self.play.take(Decide(action, run.id, self.random.choice([None, step.seq])))

    def call_back(self) -> None:
        """A remote side tells how its work has ended."""
        run, step = self.step("remote")
        self.play.take(CallBack(run.id, step.seq))

    def strangers_see_and_change_nothing(self) -> None:
        """P8: other tenants, and other workflows."""
        db, before = self.world.db, self.world.everything()
        for run in self.runs():
            for actor, metronome in ((STRANGER, METRONOME), (ACTOR, "met_b")):
                for action in ASKED:
                    assert Request(action, run.id, confirm=True).done(db, actor, metronome) is None
                assert Decide(APPROVE, run.id).done(db, actor, metronome) is None
            for seq in run.steps:
                assert CallBack(run.id, seq).done(db, METRONOME, "another token") is None
        assert self.world.everything() == before

    # -- executors

    def claim(self) -> None:
        """An executor looks for work."""
        self.play.claim(self.random.choice([1, 2, 9]))

    def go_on(self) -> None:
        """The holder of a run is between two nodes."""
        unsafe, remote = self.random.random() < 0.3, self.random.random() < 0.4
        run = self.random.choice(self.runs(held=True))
        self.play.go_on(run, self.leaves(run), unsafe=unsafe, remote=remote)

    def leaves(self, run: ModelRun) -> str:
        """How the node in flight leaves the thread; of a remote one, mostly by a callback."""
        remote = any(step.token is not None and step.connector for step in run.open_steps())
        return "callback" if remote and self.random.random() < 0.6 else self.one(LEAVES)

    def end_claim(self) -> None:
        """The holder of a run ends its claim with a move."""
        run = self.random.choice(self.runs(held=True))
        how = self.leaves(run)
        self.play.end_claim(run, self.one(ENDINGS), COMPLETED if how == "stays" else how)

    def hold(self) -> None:
        """The holder of a run does something else."""
        run = self.random.choice(self.runs(held=True))
        deed = self.one({"let go": 4, "abandon": 3, "renew": 2, "give up": 1})
        if deed == "renew":
            self.play.take(Renew(run.id, self.play.holder(run).token))
        elif deed == "give up":
            self.play.give_up(run)
        else:
            self.play.let_go(run, unfinished=deed == "abandon")

    def sweep(self) -> None:
        """An executor tidies up behind the dead."""
        self.play.sweep()

    def time_passes(self) -> None:
        """Leases end, or backoffs, sleeps and approvals."""
        for run in self.runs():
            if self.random.random() < 0.4:
                self.play.expire(run)

    def time_is_up(self) -> None:
        """A run's timeoutMs has passed."""
        self.play.time_out(self.random.choice(self.in_time()))

    def zombie(self) -> None:
        """An executor that lost a run comes back, and changes nothing."""
        zombie = self.play.zombies.pop(self.random.randrange(len(self.play.zombies)))
        before = self.world.everything()
        self._haunt(zombie, self.random.choice(MOVES))
        assert self.world.everything() == before

    def _haunt(self, zombie: Zombie, move: Action) -> None:
        held, take = zombie.held, self.play.take
        root = self.play.root(self.play.forest.runs[held.id])
        ends = [ended(seq, tell=False) for seq in zombie.in_flight]
        parks = [StepPark(seq, None) for seq in (*zombie.parked, *zombie.in_flight)]
        spawns = [
            Spawn(seq, new_id("run", after=held.id), METRONOME, "ver_a", "{}")
            for seq in zombie.in_flight
        ]
        others = [ended(seq, FAILED, tell=True) for seq in zombie.parked]
        start = StepStart(10_000, "late", "end", 1)
        last = Move(move.name, wait=1.0, wake_at=held.now)
        take(LetGo(held.id, held.token, unfinished=True))
        take(CloseAll(held.id, held.token))
        take(Renew(held.id, held.token))
        take(between(held, root, parks=parks, spawns=spawns, starts=[start]))
        take(between(held, root, ends=[*ends, *others], move=last))


class Trees(Lifecycle):
    """The same, with a tree that is there to begin with."""

    roots = 1
    shape: Sequence[int] = (2, 1)  # the children of each run, level by level

    @initialize()
    def begin(self) -> None:
        """A root, its children, and theirs."""
        super().begin()
        self.play.claim()
        level = self.runs()
        for children in self.shape:
            for run in level:
                self.play.go_on(run, COMPLETED)
                for _ in range(children):
                    self.play.go_on(run, "child")
            level = self.play.claim()
