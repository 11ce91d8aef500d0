"""What has happened in a run since the last boundary, and goes into the next one."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.store.boundary import Spawn, StepEnd, StepPark, StepStart
from app.store.leases import NextNode

RIDES = 50  # steps that have begun and ended at once, in one boundary
RIDE_BYTES = 100_000  # of their outputs


@dataclass(slots=True)
class Pending:
    """How steps have ended, which of them wait, and the runs that begin with that."""

    ends: list[StepEnd] = field(default_factory=list)
    parks: list[StepPark] = field(default_factory=list)
    spawns: list[Spawn] = field(default_factory=list)


@dataclass(slots=True)
class Passed:
    """Steps that need no boundary of their own: those passed over, and those that only computed.

    ``before`` is what was next before the first of the latter, None where there are none: if the
    run turns out to be stopped, nothing of them has happened.
    """

    steps: list[StepStart] = field(default_factory=list)
    before: list[NextNode] | None = None
    _weight: int = 0

    def ride(self, step: StepStart) -> None:
        """Add one that has begun and ended at once."""
        self.steps.append(step)
        self._weight += RIDE_BYTES // RIDES + len(step.output or "")

    def is_full(self) -> bool:
        """Whether so much waits that it is to be written now."""
        return self._weight >= RIDE_BYTES

    def take(self) -> list[StepStart]:
        """The steps, to be written now."""
        steps, self.steps = self.steps, []
        return steps

    def recorded(self) -> None:
        """They are in the trace."""
        self.before, self._weight = None, 0
