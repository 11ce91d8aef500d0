"""What became of a run: its timeline, and its result."""

from __future__ import annotations

from typing import Final

from app.db import Database
from app.domain.errors import Conflict
from app.domain.lifecycle import TERMINAL
from app.domain.models import Actor, Run, Timeline
from app.services import runs
from app.store import timeline

MAX_STEPS: Final = 1_000  # in one timeline; the list of steps has them all
MAX_BYTES: Final = 20_000_000  # of the inputs and outputs of these steps, but for the last one's
MAX_AUDIT_EVENTS: Final = 1_000


def get(db: Database, actor: Actor, metronome_id: str, run_id: str, *, compact: bool) -> Timeline:
    """The run with what started it, its steps and its audit events. Raises NotFound.

    ``compact`` leaves inputs, outputs and payloads out.
    """
    found = db.read(
        lambda connection: timeline.get(
            connection,
            actor.organization_id,
            metronome_id,
            run_id,
            steps=MAX_STEPS,
            max_bytes=MAX_BYTES,
            events=MAX_AUDIT_EVENTS,
            compact=compact,
        )
    )
    if found is None:
        raise runs.not_found()
    return found


def result(db: Database, actor: Actor, metronome_id: str, run_id: str) -> Run:
    """The run, which has ended. Raises NotFound, or Conflict while it goes on."""
    run = runs.get(db, actor, metronome_id, run_id)
    if run.status not in TERMINAL:
        raise Conflict(
            f"the run is {run.status} and has no result yet",
            code="run_not_ended",
            details={"status": run.status},
        )
    return run
