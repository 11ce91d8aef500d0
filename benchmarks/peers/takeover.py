"""How long a workflow stands still when its worker is killed: all peers at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.peer import Mark, Peer, World
from tests.processes import PATIENCE, Process, wait_for

KILLED_AT = 3  # the number of the step in flight


@dataclass(slots=True)
class _Killed:
    world: World
    pid: int
    at: float
    finished: set[int]
    went_on: Mark | None = None

    def look(self) -> None:
        """Find the first start by another process."""
        self.went_on = next(
            (
                mark
                for mark in self.world.marks()
                if mark.tag == "run" and mark.event == "start" and mark.pid != self.pid
            ),
            None,
        )

    def told(self, patience: float) -> dict[str, Any]:
        """What came of it."""
        if self.went_on is None:
            return {"seconds": None, "patience": patience, "again": None}
        again = sum(number >= self.went_on.number for number in self.finished)
        return {
            "seconds": self.went_on.at - self.at,
            "patience": patience,
            "again": again,  # steps that had finished, and ran once more
            "finished": len(self.finished),
        }


def take_over(
    peers: Sequence[Peer],
    patience: float,
    *,
    restart: bool,
    failed: Callable[[Peer, Exception], None],
) -> Mapping[str, dict[str, Any]]:
    """Kill the worker of a workflow; another one is idle beside it, or with ``restart`` it is
    started again at once. Seconds from the kill to the next start of a step, None where there is
    none within ``patience``; default settings."""
    killed: dict[str, _Killed] = {}
    with contextlib.ExitStack() as stack:
        workers: dict[str, dict[int, Process]] = {}
        for peer in peers:
            try:
                world = stack.enter_context(peer.world())
                workers[peer.name] = _ready(world, ("a",) if restart else ("a", "b"))
                killed[peer.name] = _kill(world, workers[peer.name], restart=restart)
            except Exception as error:
                failed(peer, error)
        while any(_waits(one, patience) for one in killed.values()):
            time.sleep(0.05)
            for one in killed.values():
                if one.went_on is None:
                    one.look()
        return {name: one.told(patience) for name, one in killed.items()}


def _waits(one: _Killed, patience: float) -> bool:
    return one.went_on is None and time.monotonic() < one.at + patience


def _ready(world: World, instances: Sequence[str]) -> dict[int, Process]:
    """Workers, by process id, once all of them have done something."""
    workers = {worker.pid: worker for worker in (world.start("default", one) for one in instances)}

    def all_seen() -> bool:
        world.warm_up("nap", 16)
        return {mark.pid for mark in world.marks()} >= workers.keys()

    wait_for(all_seen, 2 * PATIENCE, "all workers at work")
    return workers


def _kill(world: World, workers: Mapping[int, Process], *, restart: bool) -> _Killed:
    world.enqueue("crash", ["run"])
    pid = world.wait_for_mark("start", "run", KILLED_AT).pid
    time.sleep(0.1)
    at = time.monotonic()
    workers[pid].kill9()
    finished = {m.number for m in world.marks() if (m.tag, m.event) == ("run", "end")}
    if restart:
        world.start("default", "a")
    return _Killed(world, pid, at, finished)
