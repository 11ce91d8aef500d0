"""Runs: list, get, attach, delete; what goes on in them, and their steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection

from app.db import Database
from app.domain.errors import Conflict, NotFound
from app.domain.lifecycle import TERMINAL
from app.domain.models import Actor, Page, Run, RunView, Step
from app.services import metronomes as metronome_service
from app.store import run_list, runs, trace
from app.store.run_list import RunFilter

MAX_STEPS = 10_000  # of a trace, in one answer


def not_found() -> NotFound:
    """The one answer for a run that is unknown, or of another workflow or organization."""
    return NotFound("metronome or run not found", code="run_not_found")


def page(db: Database, actor: Actor, metronome_id: str, wanted: RunFilter, part: Page) -> list[Run]:
    """A page of the runs of a workflow, newest first. Raises NotFound."""

    found = db.read(
        lambda connection: run_list.of_metronome(
            connection, actor.organization_id, metronome_id, wanted, part
        )
    )
    if found is None:
        raise metronome_service.not_found()
    return found


def get(db: Database, actor: Actor, metronome_id: str, run_id: str) -> Run:
    """The run. Raises NotFound."""
    run = db.read(
        lambda connection: runs.get(connection, actor.organization_id, metronome_id, run_id)
    )
    if run is None:
        raise not_found()
    return run


def view(db: Database, actor: Actor, metronome_id: str, run_id: str) -> RunView:
    """The run, and what goes on in it just now. Raises NotFound."""
    found = db.read(lambda connection: runs.view(connection, actor, metronome_id, run_id))
    if found is None:
        raise not_found()
    return found


def children(
    db: Database,
    actor: Actor,
    metronome_id: str,
    run_id: str,
    wanted: RunFilter,
    part: Page,
) -> list[Run]:
    """A page of the runs that a run started, newest first, of any workflow. Raises NotFound."""
    wanted = replace(wanted, parent_run_id=run_id)

    def query(connection: Connection) -> list[Run] | None:
        if runs.get(connection, actor.organization_id, metronome_id, run_id) is None:
            return None
        return run_list.page(connection, actor.organization_id, None, wanted, part)

    found = db.read(query)
    if found is None:
        raise not_found()
    return found


def attach(
    db: Database, actor: Actor, metronome_id: str, run_id: str, changes: Mapping[str, str | None]
) -> Run:
    """Change the ``attached_...`` ids that ``changes`` names. Raises NotFound."""
    if not changes:
        return get(db, actor, metronome_id, run_id)
    with db.connect() as connection:
        run = runs.attach(connection, actor, metronome_id, run_id, changes)
    if run is None:
        raise not_found()
    return run


def delete(db: Database, actor: Actor, metronome_id: str, run_id: str) -> None:
    """Delete a run that has ended, with its steps and the runs below it.

    Raises NotFound, or Conflict while one of these is active, a node of them is still in flight, or
    the run above still goes on.
    """
    with db.connect() as connection:
        if runs.delete(connection, actor, metronome_id, run_id):
            return
        run = runs.get(connection, actor.organization_id, metronome_id, run_id)
    if run is None:
        raise not_found()
    if run.status not in TERMINAL:
        message = f"the run is {run.status}; cancel it before you delete it"
    elif run.locked_by is not None:
        message = f"the run is {run.status}, but a node of it is still in flight; try again later"
    else:
        message = f"the run is {run.status}, but a run below or above it is still active"
    raise Conflict(message, code="run_active", details={"status": run.status})


def list_steps(
    db: Database, actor: Actor, metronome_id: str, run_id: str, part: Page
) -> list[Step]:
    """A page of the trace of a run, in order. Raises NotFound."""
    found = db.read(lambda connection: trace.page(connection, actor, metronome_id, run_id, part))
    if found is None:
        raise not_found()
    return found
