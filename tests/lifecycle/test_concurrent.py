"""People and executors who act on one tree at the same moment.

All rows of the tree are locked, or only the last one; then they come, one by one, until each of
them waits or is through; then the lock is let go. What the database says then, and all that they
were answered, has to be what the model says of one of the orders in which they may have come.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from random import Random
from typing import Any

import pytest

from app.db import Database
from app.domain.lifecycle import (
    APPROVE,
    AWAIT_APPROVAL,
    CANCEL,
    COMPLETE,
    COMPLETED,
    FAIL,
    PAUSE,
    REJECT,
    RESUME,
    RETRY,
    Action,
)
from app.store.leases import NextNode
from tests.lifecycle import truth
from tests.lifecycle.deeds import CallBack, Claim, Decide, Deed, LetGo, Renew, Request, Sweep
from tests.lifecycle.model import Forest, ModelRun
from tests.lifecycle.play import Play
from tests.processes import wait_for
from tests.store.world import World

Actor = tuple[Deed, ...]  # what one of them does, one after the other
PATIENCE = 30.0  # seconds
TABLES = ("runs", "steps", "audit_events", "outbox")


class Scene(Play):
    """A tree in which everything goes on at once.

    The root is held, and waits for a callback and two children besides. Of these the first one is
    held too, and waits for its own child, the leaf, which is held; the second one waits for an
    approval.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        for table in TABLES:
            world.execute(f"DELETE FROM {table}")
        self.top = self.put()
        self.claim()
        self.go_on(self.top, COMPLETED, remote=True)
        for how in ("callback", "child", "child"):
            self.go_on(self.top, how)
        self.child, self.other = self.claim()
        self.go_on(self.child, COMPLETED)
        self.go_on(self.child, "child")
        self.go_on(self.other, COMPLETED)
        self.end_claim(self.other, AWAIT_APPROVAL, "deadline")
        (self.leaf,) = self.claim()
        self.go_on(self.leaf, COMPLETED, unsafe=True)

    def everybody_is_stopped(self, action: Action) -> None:
        """The root was paused or cancelled; the executors don't know yet."""
        self.take(Request(action, self.top.id))

    def everybody_is_dead(self, action: Action) -> None:
        """The root was paused or cancelled, and all executors died before they knew."""
        self.everybody_is_stopped(action)
        for run in self.held():
            self.expire(run)

    def is_in_doubt(self) -> None:
        """The leaf was left behind by its executor, and so was the root."""
        self.take(LetGo(self.leaf.id, self.holder(self.leaf).token, unfinished=True))
        self.go_on(self.top, COMPLETED, unsafe=True)
        self.take(LetGo(self.top.id, self.holder(self.top).token, unfinished=True))


def requests(action: Action, whom: str, **more: bool) -> Callable[[Scene], Actor]:
    """Somebody asks for an action on one of the runs."""
    return lambda scene: (Request(action, run(scene, whom).id, **more),)


def run(scene: Scene, whom: str) -> ModelRun:
    """One of the runs of the tree."""
    found: ModelRun = getattr(scene, whom)
    return found


def lets_go(whom: str, *, unfinished: bool) -> Callable[[Scene], Actor]:
    """The holder of a run gives it back."""

    def build(scene: Scene) -> Actor:
        held = run(scene, whom)
        following = NextNode(99, "following", "end", 1)
        return (LetGo(held.id, scene.holder(held).token, (following,), unfinished),)

    return build


def child_fails(scene: Scene) -> Actor:
    """Before a run fails, its executor cancels what is below it."""
    return Request(CANCEL, scene.leaf.id), scene.end(scene.child, FAIL)


ACTORS: dict[str, Callable[[Scene], Actor]] = {
    "cancel root": requests(CANCEL, "top"),
    "cancel child": requests(CANCEL, "child"),
    "cancel leaf": requests(CANCEL, "leaf"),
    "pause root": requests(PAUSE, "top"),
    "pause child": requests(PAUSE, "child"),
    "resume root": requests(RESUME, "top"),
    "resume child": requests(RESUME, "child"),
    "resume surely": requests(RESUME, "top", confirm=True),
    "resume leaf surely": requests(RESUME, "leaf", confirm=True),
    "retry": requests(RETRY, "top", afresh=False),
    "retry afresh": requests(RETRY, "top", afresh=True),
    "approve": lambda scene: (Decide(APPROVE, scene.other.id),),
    "reject": lambda scene: (Decide(REJECT, scene.other.id),),
    "call back": lambda scene: (CallBack(scene.top.id, 1),),
    "root goes on": lambda scene: (scene.start(scene.top, COMPLETED),),
    "root spawns": lambda scene: (scene.start(scene.top, "child"),),
    "child spawns": lambda scene: (scene.park(scene.child, "child"),),
    "root parks": lambda scene: (scene.park(scene.top, "sleep"),),
    "leaf completes": lambda scene: (scene.end(scene.leaf, COMPLETE),),
    "child fails": child_fails,
    "root lets go": lets_go("top", unfinished=False),
    "leaf is left behind": lets_go("leaf", unfinished=True),
    "heartbeat": lambda scene: (Renew(scene.top.id, scene.holder(scene.top).token),),
    "claim": lambda scene: (Claim(9),),
    "sweep": lambda scene: (Sweep(),),
}

# One executor holds a run, in one thread: it does only one of these.
THREADS = [
    {"root goes on", "root spawns", "root parks", "root lets go"},
    {"child spawns", "child fails"},
]

# What had happened to the tree, and who may come then.
SCENES: dict[str, tuple[Callable[[Scene], object], list[str]]] = {
    "all goes on": (
        lambda scene: None,
        [
            *("cancel root", "cancel child", "cancel leaf", "pause root", "pause child"),
            *("approve", "call back", "root goes on", "root spawns", "child spawns", "root parks"),
            *("leaf completes", "child fails", "leaf is left behind"),
        ],
    ),
    "paused": (
        lambda scene: scene.everybody_is_stopped(PAUSE),
        [
            *("cancel root", "resume root", "pause child", "resume child", "approve", "reject"),
            *("call back", "root spawns", "leaf completes", "root lets go", "leaf is left behind"),
        ],
    ),
    "cancelled": (
        lambda scene: scene.everybody_is_stopped(CANCEL),
        [
            *("cancel root", "pause root", "retry", "retry afresh", "approve", "call back"),
            *("root parks", "root lets go", "claim"),
        ],
    ),
    "paused, and all are dead": (
        lambda scene: scene.everybody_is_dead(PAUSE),
        ["cancel root", "resume root", "resume child", "sweep", "claim", "root parks", "heartbeat"],
    ),
    "in doubt": (
        lambda scene: scene.is_in_doubt(),
        [
            *("cancel root", "pause root", "resume surely", "resume leaf surely", "retry"),
            *("retry afresh", "call back", "child fails", "claim"),
        ],
    ),
}


class Stage:
    """One scene, to be played again and again; each who acts has a connection of their own."""

    def __init__(self, db: Database, begin: Callable[[Scene], object]) -> None:
        self.world = World(db)
        self._lines = [self.world.raw() for _ in range(3)]
        self._scene = Scene(self.world)
        begin(self._scene)
        self._scene.check()
        self._known = copy.deepcopy(self._scene.news)
        for table in TABLES:
            self.world.execute(f"CREATE TEMP TABLE saved_{table} AS TABLE {table}")

    def play(self, names: Sequence[str], *, only_last: bool) -> None:
        """Let them act at the same moment; the outcome is that of one order, or this fails."""
        self._set_back()
        actors = [ACTORS[name](self._scene) for name in names]
        runs = sorted(self._scene.forest.runs)
        begun: list[Future[list[Any]]] = []
        with self.world.locked(*(runs[-1:] if only_last else runs)):
            for line, actor in zip(self._lines, actors, strict=False):
                begun.append(self.world.begin(self._act, actor, line))
                self._settle(begun)
        said = [one.result(PATIENCE) for one in begun]
        found = truth.found(self.world)
        states = outcomes(self._scene.forest, actors, said)
        wrong = [truth.difference(found, state) for state in states]
        assert [] in wrong, (names, said, wrong)
        assert (violated := truth.violations(self.world)) == [], (names, violated)

    def _set_back(self) -> None:
        for table in TABLES:
            self.world.execute(f"DELETE FROM {table}; INSERT INTO {table} TABLE saved_{table}")
        self._scene.news = copy.deepcopy(self._known)

    def _act(self, actor: Actor, line: Any) -> list[Any]:
        return [deed.ask(self.world.db, line) for deed in actor]

    def _settle(self, begun: list[Future[list[Any]]]) -> None:
        """Return once each of them waits for a lock, or has come to its end."""

        def settled() -> bool:
            (row,) = self.world.query(
                "SELECT count(*) AS n FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(row["n"] + sum(one.done() for one in begun) >= len(begun))

        wait_for(settled, message="that everybody waits")


def merged(actors: Sequence[Actor]) -> Iterator[list[tuple[int, int]]]:
    """Every order of all deeds, those of one actor in theirs: (actor, deed)."""
    places = [number for number, actor in enumerate(actors) for _ in actor]
    for order in set(itertools.permutations(places)):
        counts = [itertools.count() for _ in actors]
        yield [(number, next(counts[number])) for number in order]


def outcomes(
    forest: Forest, actors: Sequence[Actor], said: list[list[Any]]
) -> Iterator[truth.State]:
    """What the model has after each order in which everybody is answered what they were."""
    for order in merged(actors):
        model = copy.deepcopy(forest)
        try:
            for actor, deed in order:
                answer = said[actor][deed]
                assert actors[actor][deed].expect(model, answer) == answer
        except AssertionError:
            continue
        yield truth.predicted(model)


def possible(names: Sequence[str]) -> bool:
    """Whether these can come at once."""
    return all(sum(name in thread for name in names) <= 1 for thread in THREADS)


PAIRS = [
    pytest.param(scene, first, id=f"{scene}: {first}")
    for scene, (_, names) in SCENES.items()
    for first in names
]


@pytest.mark.parametrize(("scene", "first"), PAIRS)
def test_of_two_who_act_at_once_one_was_first(db: Database, scene: str, first: str) -> None:
    begin, names = SCENES[scene]
    stage = Stage(db, begin)
    for second in names:
        for only_last in (False, True) if possible((first, second)) else ():
            stage.play((first, second), only_last=only_last)
    stage.world.close()


@pytest.mark.parametrize("scene", SCENES)
def test_of_three_who_act_at_once_one_was_first(db: Database, scene: str) -> None:
    begin, names = SCENES[scene]
    stage, random = Stage(db, begin), Random(scene)
    threes = [three for three in itertools.permutations(names, 3) if possible(three)]
    for three in random.sample(threes, 30):
        stage.play(three, only_last=random.random() < 0.5)
    stage.world.close()
