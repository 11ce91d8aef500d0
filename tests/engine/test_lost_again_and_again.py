"""Executors that die, and people who stop a run and go on, at any boundary: its end is the same.

The same workflow runs undisturbed first, and what has come of each of its nodes is compared. One
has loops, in which each node has its boundary; the other is straight, and its steps ride along.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.models import Run
from app.engine import pending
from app.engine.executor import Executor
from app.engine.writer import GaveUp
from app.services import transitions
from app.store.boundary import Boundary, Verdict
from tests.engine.bodies import ITERATION, inside, loop, lose, retry
from tests.engine.conftest import ACTOR, Lab, node
from tests.processes import wait_for


def workflow() -> list[dict[str, Any]]:
    """Loops in loops and side by side, with branches, errors and sleeps inside of them."""
    return [
        node("trigger"),
        loop("outer", loopType="for_each", inputBinding="['x', 'y', 'z', 'x']"),
        *inside(
            "outer",
            node("condition", conditions=[{"id": "x", "expression": "loop.item == 'x'"}]),
            node("transform", "only_x", output={"i": ITERATION, "before": "{{ loop.previous }}"}),
            loop("inner", iterations="{{ loop.index }}", rule="loop.index == 1"),
            node(
                "transform", "fails_at_y", output="{{ nowhere if loop.item == 'y' else loop.item }}"
            ),
            node("note", "mended"),
            loop("broken", iterations=2),
            node("transform", "why", output={"error": "{{ steps.broken.error }}"}),
            node("end", "told", output={"all": "{{ inbound }}", "i": ITERATION}),
        ),
        *inside(
            "inner",
            node("transform", "deep", output={"at": "{{ loop.outer.item }}{{ loop.index }}"}),
            node("delay", "nap", seconds=0),
            node("condition", "rarely", conditions=[{"id": "no", "expression": "false"}]),
            node("note", "never"),
        ),
        *inside(
            "broken",
            node("transform", "breaks", output="{{ nowhere if loop.index == 1 else 1 }}"),
            node("transform", "unbroken", output=ITERATION),
        ),
        loop("beside", loopType="until", rule="steps.count.output.n > 2", maxIterations=9),
        *inside("beside", node("transform", "count", output={"n": ITERATION})),
        node("end", output={"said": "{{ inbound }}"}),
    ]


EDGES = """trigger>outer trigger>beside outer>end beside>end
    condition>only_x:x condition>inner only_x>told inner>fails_at_y fails_at_y>mended:error
    fails_at_y>broken broken>why:error mended>told why>told broken>told
    deep>nap nap>rarely rarely>never:no breaks>unbroken"""


def turning(lab: Lab) -> Run:
    """A run of that workflow."""
    return lab.queue(*workflow(), edges=" ".join(EDGES.split()))


def straight(lab: Lab) -> Run:
    """A run that branches and comes together again and again, waits and fails, without loops."""
    nodes, edges = [node("trigger")], []
    before = "trigger"
    for part in range(6):
        wanted = "yes" if part % 2 else "no"
        names = [f"{name}{part}" for name in ("if", "yes", "no", "longer", "both")]
        asked, yes, no, longer, both = names
        nodes += [
            node("condition", asked, conditions=[{"id": "yes", "expression": f"{part} % 2 == 1"}]),
            node("transform", yes, output={"part": part}),
            node("note", no),
            node("note", longer),
            node("transform", both, output={"from": f"{{{{ steps.{wanted}{part}.output }}}}"}),
        ]
        edges += [f"{before}>{asked}", f"{asked}>{yes}:yes", f"{asked}>{no}:else"]
        edges += [f"{no}>{longer}", f"{yes}>{both}", f"{longer}>{both}"]
        before = both
    nodes += [
        node("delay", "nap", seconds=0),
        node("transform", "fails", output="{{ nowhere }}"),
        node("note", "mended"),
        node("end", output={"said": "{{ inbound }}", "all": "{{ steps.both5.output }}"}),
    ]
    edges += [f"{before}>nap", "nap>fails", "fails>mended:error", "fails>end", "mended>end"]
    return lab.queue(*nodes, edges=" ".join(edges))


QUEUED = pytest.mark.parametrize("queue", [turning, straight])


@pytest.fixture(autouse=True)
def few_ride(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boundaries enough to be disturbed at, with steps that ride at most of them."""
    monkeypatch.setattr(pending, "RIDES", 2)


def way(lab: Lab, run: Run) -> list[tuple[Any, ...]]:
    """What has come of each node in each iteration.

    What was lost or cancelled is left out. A node that has failed may do so again after a retry,
    but nothing ends well, or is passed over, twice.
    """
    found = [
        (step.node_id, tuple(one.iteration for one in step.loops), step.status)
        for step in lab.trace(run)
        if "executor lost" not in (step.error or "") and step.status != "cancelled"
    ]
    failed = {one for one in found if one[2] == "failed"}
    return sorted([*failed, *(one for one in found if one[2] != "failed")])


class Mortal:
    """An executor whose process seems to be gone at some of its boundaries."""

    def __init__(self, executor: Executor, seed: int) -> None:
        self.died = threading.Event()
        self.deaths = 0
        self._random = random.Random(seed)
        self._write = executor._writer.write
        executor._writer.write = self._or_die  # type: ignore[method-assign]

    def _or_die(self, boundary: Boundary) -> Verdict:
        fate = self._random.random()
        if fate < 0.1:  # nothing of it was written
            self._die()
        verdict = self._write(boundary)
        if fate > 0.9 and boundary.move is None:  # all of it was, but nobody heard of it
            self._die()
        return verdict

    def _die(self) -> None:
        self.deaths += 1
        self.died.set()
        raise GaveUp


@QUEUED
@pytest.mark.parametrize("seed", range(8))
def test_a_run_comes_to_the_same_end_by_the_same_way(
    lab: Lab, seed: int, queue: Callable[[Lab], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("MAX_LOSSES", "MAX_TAKEOVERS"):  # this run is no poison, only unlucky
        monkeypatch.setattr(f"app.engine.interpreter.{limit}", 99)
    executor = lab.start()
    undisturbed = queue(lab)
    expected = lab.until(undisturbed, "completed").output
    mortal = Mortal(executor, seed)
    run = queue(lab)

    def ended() -> bool:
        if mortal.died.is_set():
            mortal.died.clear()
            lose(lab, run)
        return lab.get(run).completed_at is not None

    wait_for(ended, message=lambda: str(lab.get(run)))
    now = lab.get(run)
    assert mortal.deaths >= (1 if queue is straight else 4)
    assert (now.status, now.error) == ("completed", None)
    assert now.output == expected
    assert way(lab, run) == way(lab, undisturbed)


class Meddler:
    """Somebody who cancels or pauses the run at some of its boundaries."""

    def __init__(self, lab: Lab, executor: Executor, seed: int, odds: float) -> None:
        self.stops = 0
        self._odds = odds
        self._lab = lab
        self._random = random.Random(seed)
        self._write = executor._writer.write
        executor._writer.write = self._meddle  # type: ignore[method-assign]

    def _meddle(self, boundary: Boundary) -> Verdict:
        fate = self._random.random()
        if fate < self._odds:
            self._stop(boundary, fate < self._odds / 2)
        verdict = self._write(boundary)
        if fate > 1 - self._odds:
            self._stop(boundary, fate > 1 - self._odds / 2)
        return verdict

    def _stop(self, boundary: Boundary, for_good: bool) -> None:
        lab, ids = self._lab, (boundary.metronome_id, boundary.run_id)
        if for_good:
            self.stops += transitions.cancel(lab.db, ACTOR, *ids, free=lab.free).moved
        else:
            self.stops += transitions.pause(lab.db, ACTOR, *ids).moved


@QUEUED
@pytest.mark.parametrize("seed", range(8))
def test_what_is_stopped_and_taken_up_again_comes_to_the_same_end(
    lab: Lab, seed: int, queue: Callable[[Lab], Run]
) -> None:
    executor = lab.start()
    undisturbed = queue(lab)
    expected = lab.until(undisturbed, "completed").output
    meddler = Meddler(lab, executor, seed, odds=0.25 if queue is straight else 0.08)
    run = queue(lab)

    def ended() -> bool:
        now = lab.get(run)
        if now.locked_by is None and now.status == "cancelled":
            assert all(step.completed_at for step in lab.trace(run)), "nothing is left open"
            retry(lab, run)
        elif now.locked_by is None and now.status == "paused":
            transitions.resume(lab.db, ACTOR, run.metronome_id, run.id, free=lab.free)
            lab.tell()
        return now.status in ("completed", "failed")

    wait_for(ended, message=lambda: str(lab.get(run)))
    now = lab.get(run)
    assert meddler.stops > 3
    assert (now.status, now.error) == ("completed", None)
    assert now.output == expected
    assert way(lab, run) == way(lab, undisturbed)
