"""Random people, executors and remote sides, for Hypothesis to play."""

from __future__ import annotations

from collections.abc import Sequence

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
    SLEEP,
    Action,
)
from app.store.boundary import Move, StepPark, StepStart
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
from tests.lifecycle.model import ModelRun, ModelStep
from tests.lifecycle.play import WAITS, Play, Zombie
from tests.store.world import ACTOR, METRONOME, World

# Most of what is asked brings a run back to life, so that there is something left to stop.
ASKED = [CANCEL, PAUSE, PAUSE, RESUME, RESUME, RESUME, RETRY, RETRY, RETRY]
ANSWERS = [APPROVE, APPROVE, REJECT]
LEAVES = [COMPLETED, FAILED, "stays", *WAITS, "child", "child"]
ENDINGS = [COMPLETE, FAIL, BACKOFF, AWAIT_APPROVAL, SLEEP, SLEEP, SLEEP, DOUBT]
NUMBERS = st.integers(0, 99)
TABLES = ("runs", "steps", "audit_events", "outbox")


class Lifecycle(RuleBasedStateMachine):
    """A forest of runs in which anything may come next."""

    database: Database
    roots: int = 3  # runs to begin with

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.database)

    def teardown(self) -> None:
        self.world.close()

    @initialize()
    def begin(self) -> None:
        """A few queued runs and nothing else."""
        for table in TABLES:
            self.world.execute(f"DELETE FROM {table}")
        self.play = Play(self.world)
        for number in range(self.roots):
            self.play.put(timeout=number == 1)

    def pick(self, number: int) -> ModelRun:
        """One of the runs."""
        runs = list(self.play.forest.runs.values())
        return runs[number % len(runs)]

    def held(self, number: int) -> ModelRun | None:
        """One of the runs that somebody holds."""
        held = self.play.held()
        return held[number % len(held)] if held else None

    def wanted(self, number: int, kind: str) -> tuple[ModelRun, ModelStep] | None:
        """A step that somebody outside may have something to say to, open or not."""
        found = [
            (run, step)
            for run in self.play.forest.runs.values()
            for step in run.steps.values()
            if (step.connector if kind == "remote" else step.status == "waiting_approval")
        ]
        found.sort(key=lambda pair: (not pair[1].open, pair[1].told))
        return found[number % len(found)] if found else None

    # -- people

    @rule(number=NUMBERS, action=st.sampled_from(ASKED), kind=st.booleans())
    def request(self, number: int, action: Action, kind: bool) -> None:
        """Somebody asks for an action; what changes nothing leaves every byte as it is."""
        play = self.play
        before, model = self.world.everything(), truth.predicted(play.forest)
        play.take(Request(action, self.pick(number).id, confirm=kind, afresh=kind))
        if truth.predicted(play.forest) == model:
            assert self.world.everything() == before

    @rule(number=NUMBERS, action=st.sampled_from(ANSWERS), named=st.booleans())
    def decide(self, number: int, action: Action, named: bool) -> None:
        """Somebody approves or rejects."""
        found = self.wanted(number, "approval")
        run = found[0] if found else self.pick(number)
        seq = found[1].seq if found and named else None
        self.play.take(Decide(action, run.id, seq))

    @rule(number=NUMBERS)
    def call_back(self, number: int) -> None:
        """A remote side tells how its work has ended."""
        found = self.wanted(number, "remote")
        if found is not None:
            self.play.take(CallBack(found[0].id, found[1].seq))

    @rule(number=NUMBERS, action=st.sampled_from([CANCEL, PAUSE, RESUME, RETRY]))
    def strangers_see_and_change_nothing(self, number: int, action: Action) -> None:
        """P8: other tenants, and other workflows."""
        run, db = self.pick(number), self.world.db
        before = self.world.everything()
        for actor, metronome in ((STRANGER, METRONOME), (ACTOR, "met_b")):
            assert Request(action, run.id, confirm=True).done(db, actor, metronome) is None
            assert Decide(APPROVE, run.id).done(db, actor, metronome) is None
        for seq in run.steps:
            assert CallBack(run.id, seq).done(db, METRONOME, "another token") is None
            assert CallBack(run.id, seq).done(db, "met_b", "another token") is None
        assert self.world.everything() == before

    # -- executors

    @rule(limit=st.integers(1, 9))
    def claim(self, limit: int) -> None:
        """An executor looks for work."""
        self.play.claim(limit)

    @rule(
        number=NUMBERS,
        how=st.sampled_from(LEAVES),
        unsafe=st.booleans(),
        remote=st.booleans(),
    )
    def go_on(self, number: int, how: str, unsafe: bool, remote: bool) -> None:
        """The holder of a run is between two nodes."""
        if (run := self.held(number)) is not None:
            self.play.go_on(run, how, unsafe=unsafe, remote=remote)

    @rule(number=NUMBERS, how=st.sampled_from(LEAVES))
    def go_on_from_the_last(self, number: int, how: str) -> None:
        """The same again: there are many nodes between two moves."""
        if (run := self.held(number)) is not None:
            self.play.go_on(run, how)

    @rule(number=NUMBERS, move=st.sampled_from(ENDINGS), how=st.sampled_from([COMPLETED, *WAITS]))
    def end_claim(self, number: int, move: Action, how: str) -> None:
        """The holder of a run ends its claim with a move."""
        if (run := self.held(number)) is not None:
            self.play.end_claim(run, move, how)

    @rule(number=NUMBERS, deed=st.sampled_from(["let go", "abandon", "renew", "give up"]))
    def hold(self, number: int, deed: str) -> None:
        """The holder of a run does something else."""
        run = self.held(number)
        if run is None:
            return
        if deed == "renew":
            self.play.take(Renew(run.id, self.play.holder(run).token))
        elif deed == "give up":
            self.play.give_up(run)
        else:
            self.play.let_go(run, unfinished=deed == "abandon")

    @rule()
    def sweep(self) -> None:
        """An executor tidies up behind the dead."""
        self.play.sweep()

    @rule(numbers=st.sets(st.integers(0, 8), min_size=1))
    def time_passes(self, numbers: set[int]) -> None:
        """Leases end, or backoffs, sleeps and approvals."""
        for number in sorted(numbers):
            self.play.expire(self.pick(number))

    @rule(number=NUMBERS)
    def everybody_dies(self, number: int) -> None:
        """All leases end, and others come."""
        for run in self.play.held():
            self.play.expire(run)
        self.play.sweep()
        self.play.claim()

    @rule(number=NUMBERS)
    def time_is_up(self, number: int) -> None:
        """A run's timeoutMs has passed."""
        self.play.time_out(self.pick(number))

    @rule(number=NUMBERS, move=st.sampled_from(MOVES))
    def zombie(self, number: int, move: Action) -> None:
        """An executor that lost a run comes back; it may tell how its own node ended, no more."""
        if not self.play.zombies:
            return
        zombie = self.play.zombies.pop(number % len(self.play.zombies))
        before = self.world.everything()
        steps = self.play.forest.runs[zombie.held.id].steps
        tells = [seq for seq in zombie.in_flight if steps[seq].token == zombie.held.token]
        self._haunt(zombie, move)
        after = self.world.everything()
        if not tells:
            assert after == before
        assert {**after, "steps": ()} == {**before, "steps": ()}

    def _haunt(self, zombie: Zombie, move: Action) -> None:
        held, take = zombie.held, self.play.take
        run = self.play.forest.runs[held.id]
        root = self.play.root(run)
        ends = [ended(seq, tell=False) for seq in zombie.in_flight]
        parks = [StepPark(seq, None) for seq in zombie.parked]
        others = [ended(seq, FAILED, tell=True) for seq in zombie.parked]
        start = StepStart(10_000, "late", "end", 1)
        last = Move(move.name, wait=1.0, wake_at=held.now)
        take(LetGo(held.id, held.token, unfinished=True))
        take(CloseAll(held.id, held.token))
        take(Renew(held.id, held.token))
        take(between(held, root, ends=[*ends, *others], starts=[start]))
        take(between(held, root, ends=others, parks=parks, move=last))

    # -- what is always true

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        """After each of these."""
        if hasattr(self, "play"):
            self.play.check()


class Forest(Lifecycle):
    """The same, on trees that are there to begin with, and everybody in them waits."""

    roots = 1
    shape: Sequence[int] = (2, 1)  # the children of each run, level by level

    @initialize()
    def begin(self) -> None:
        """A root, its children, and theirs."""
        super().begin()
        play = self.play
        play.claim()
        level = list(play.forest.runs.values())
        for children in self.shape:
            for run in level:
                play.go_on(run, COMPLETED)
                for _ in range(children):
                    play.go_on(run, "child")
            play.claim()
            level = [run for run in play.held() if run not in level and not run.steps]
