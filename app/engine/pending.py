"""What a run has still to write: it goes into the next boundary."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from app.store.boundary import Spawn, StepEnd, StepPark, StepStart

RIDES = 50  # steps that have begun and ended at once, in one boundary
RIDE_BYTES = 100_000  # of their outputs
RIDE_SECONDS = 0.02  # since the first of them


@dataclass(slots=True)
class Pending:
    """What has happened since the last boundary and goes into the next one."""

    ends: list[StepEnd] = field(default_factory=list)
    parks: list[StepPark] = field(default_factory=list)
    spawns: list[Spawn] = field(default_factory=list)

    def is_only(self, seq: int | None) -> bool:
        """Whether it is nothing, but for the end of that step."""
        return not (self.parks or self.spawns) and all(end.seq == seq for end in self.ends)


@dataclass(slots=True)
class Rides:
    """Steps that only computed, and come into the trace with the next boundary: see riding.py.

    ``before`` are the nodes that were next ahead of the first of them, whose seq is ``first``, and
    ``rode`` those that have ridden since, until they are in the trace: if the run turns out to be
    stopped, nothing of them has happened. ``behind`` is the step that only computes and was started
    last at a boundary.
    """

    steps: list[StepStart] = field(default_factory=list)
    before: list[str] | None = None
    first: int = 0
    rode: set[str] = field(default_factory=set)
    behind: int | None = None
    _bytes: int = 0
    _since: float = 0.0

    def begin(self, ready: list[str], first: int) -> None:
        """The first of them is about to be added, with that seq; ``ready`` would start else."""
        self.before, self.first, self.rode = ready, first, set()
        self._bytes, self._since = 0, time.monotonic()

    def add(self, step: StepStart) -> None:
        """Add one that has begun and ended."""
        self.steps.append(step)
        self.rode.add(step.node_id)
        self._bytes += len(step.output or "")

    def is_full(self) -> bool:
        """Whether so much waits, or for so long, that it is to be written now."""
        return bool(self.steps) and (
            len(self.steps) >= RIDES
            or self._bytes >= RIDE_BYTES
            or time.monotonic() - self._since >= RIDE_SECONDS
        )

    def take(self) -> list[StepStart]:
        """The steps, to be written now."""
        steps, self.steps = self.steps, []
        return steps
