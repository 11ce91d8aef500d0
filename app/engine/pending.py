"""What has happened in a run since the last boundary, and goes into the next one."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.store.boundary import Spawn, StepEnd, StepPark


@dataclass(slots=True)
class Pending:
    """How steps have ended, which of them wait, and the runs that begin with that."""

    ends: list[StepEnd] = field(default_factory=list)
    parks: list[StepPark] = field(default_factory=list)
    spawns: list[Spawn] = field(default_factory=list)
