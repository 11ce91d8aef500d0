"""Runs: create, list, get, attach, delete; what goes on in them, and their steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from app.db import Database
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.jsonvalue import dumps
from app.domain.lifecycle import TERMINAL
from app.domain.models import Actor, Run, RunView, Step
from app.ids import new_id
from app.services import definitions
from app.services import metronomes as metronome_service
from app.store import metronomes, runs, trace, versions
from app.store.runs import RunFilter

MAX_INPUT_BYTES = 10_000_000  # as JSON; a request's own limit is lower as a rule
MAX_STEPS = 10_000  # of a trace, in one answer


def not_found() -> NotFound:
    """The one answer for a run that is unknown, or of another workflow or organization."""
    return NotFound("metronome or run not found", code="run_not_found")


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller wants to be run; without version and definition it is the draft."""

    input: dict[str, Any] = field(default_factory=dict)
    input_field: str = "input"  # what the caller named it, for errors
    definition: dict[str, Any] | None = None
    version_id: str | None = None
    trigger_type: str = "manual"
    idempotency_key: str | None = None
    max_attempts: int = 1
    timeout_ms: int | None = None
    attached_project_id: str | None = None
    attached_ticket_id: str | None = None


def create(
    db: Database,
    actor: Actor,
    metronome_id: str,
    wanted: RunRequest,
    *,
    tell: Callable[[], None],
) -> tuple[Run, bool]:
    """Queue a run; the run, and False where its idempotency key had been used: the run of then.

    ``tell`` is called once there is a new run, and must not block.
    Raises NotFound, Invalid (definition, versionId) or Conflict (archived, nothing to run).
    """
    new = runs.NewRun(
        id=new_id("run"),
        metronome_id=metronome_id,
        version_id=wanted.version_id,
        trigger_type=wanted.trigger_type,
        input=dumps(wanted.input, wanted.input_field, max_bytes=MAX_INPUT_BYTES),
        idempotency_key=wanted.idempotency_key,
        max_attempts=wanted.max_attempts,
        timeout_ms=wanted.timeout_ms,
        attached_project_id=wanted.attached_project_id,
        attached_ticket_id=wanted.attached_ticket_id,
    )
    with db.connect() as connection:
        if wanted.definition is not None:
            return _create_inline(connection, actor, new, wanted.definition, tell)
        created = runs.create(connection, actor, new)
        if created and created.run:
            tell()
            return created.run, True
        if created is None:
            raise metronome_service.not_found()
        if earlier := _earlier(connection, actor, new):
            return earlier, False
        _check_can_run(created.metronome_status)
        if wanted.version_id is not None:
            raise Invalid(
                "versionId is not a version of this metronome",
                details={"versionId": ["is not a version of this metronome"]},
            )
        return _create_of_draft(connection, actor, new, tell)


def _create_of_draft(
    connection: Connection, actor: Actor, new: runs.NewRun, tell: Callable[[], None]
) -> tuple[Run, bool]:
    """The first run since the draft was saved: it makes the draft a version."""
    metronome = metronomes.get(connection, actor.organization_id, new.metronome_id)
    if metronome is None:
        raise metronome_service.not_found()
    if definitions.runs_nothing(metronome.definition):
        raise Conflict("the definition has no node that could run", code="nothing_to_run")
    version_id = versions.of_draft(connection, actor, new.metronome_id)
    return _create_of_version(connection, actor, new, version_id, tell)


def _create_inline(
    connection: Connection,
    actor: Actor,
    new: runs.NewRun,
    definition: dict[str, Any],
    tell: Callable[[], None],
) -> tuple[Run, bool]:
    metronome = metronomes.get(connection, actor.organization_id, new.metronome_id)
    if metronome is None:
        raise metronome_service.not_found()
    if earlier := _earlier(connection, actor, new):
        return earlier, False
    _check_can_run(metronome.status)
    document = definitions.checked(definition)
    if definitions.runs_nothing(definition):
        message = "has no node that could run"
        raise Invalid(f"definition {message}", details={"definition.nodes": [message]})
    version = versions.NewVersion(
        definition=document,
        node_count=len(definition.get("nodes", ())),
        edge_count=len(definition.get("edges", ())),
    )
    version_id = versions.create(connection, actor, new.metronome_id, version)
    return _create_of_version(connection, actor, new, version_id, tell)


def _create_of_version(
    connection: Connection,
    actor: Actor,
    new: runs.NewRun,
    version_id: str | None,
    tell: Callable[[], None],
) -> tuple[Run, bool]:
    values = {name: getattr(new, name) for name in new.__slots__}
    created = runs.create(connection, actor, runs.NewRun(**values | {"version_id": version_id}))
    if created is None:
        raise metronome_service.not_found()
    if created.run:
        tell()
        return created.run, True
    if earlier := _earlier(connection, actor, new):
        return earlier, False
    _check_can_run(created.metronome_status)
    raise Conflict("the run that has this idempotencyKey was just deleted; send the request again")


def _earlier(connection: Connection, actor: Actor, new: runs.NewRun) -> Run | None:
    if new.idempotency_key is None:
        return None
    return runs.with_idempotency_key(
        connection, actor.organization_id, new.metronome_id, new.idempotency_key
    )


def _check_can_run(metronome_status: str) -> None:
    if metronome_status == metronomes.ARCHIVED:
        raise Conflict(
            "the metronome is archived and takes no new runs; set its status to run it again",
            code="metronome_archived",
        )


def page(
    db: Database, actor: Actor, metronome_id: str, wanted: RunFilter, *, limit: int, offset: int
) -> list[Run]:
    """Up to ``limit`` runs of a workflow, newest first. Raises NotFound."""

    def query(connection: Connection) -> list[Run] | None:
        found = runs.page(
            connection, actor.organization_id, metronome_id, wanted, limit=limit, offset=offset
        )
        if found or metronomes.get(connection, actor.organization_id, metronome_id):
            return found
        return None

    found = db.read(query)
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
    found = db.read(
        lambda connection: runs.view(connection, actor.organization_id, metronome_id, run_id)
    )
    if found is None:
        raise not_found()
    return found


def children(
    db: Database,
    actor: Actor,
    metronome_id: str,
    run_id: str,
    statuses: tuple[str, ...] = (),
    *,
    limit: int,
    offset: int,
) -> list[Run]:
    """Up to ``limit`` runs that a run started, newest first, of any workflow. Raises NotFound."""
    wanted = RunFilter(statuses=statuses, parent_run_id=run_id)

    def query(connection: Connection) -> list[Run] | None:
        if runs.get(connection, actor.organization_id, metronome_id, run_id) is None:
            return None
        return runs.page(
            connection, actor.organization_id, None, wanted, limit=limit, offset=offset
        )

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
    db: Database,
    actor: Actor,
    metronome_id: str,
    run_id: str,
    *,
    limit: int = MAX_STEPS,
    offset: int = 0,
) -> list[Step]:
    """Up to ``limit`` steps of the trace of a run, in order. Raises NotFound."""
    found = db.read(
        lambda connection: trace.page(
            connection, actor.organization_id, metronome_id, run_id, limit=limit, offset=offset
        )
    )
    if found is None:
        raise not_found()
    return found
