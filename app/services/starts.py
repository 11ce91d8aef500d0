"""Starting runs, for whoever asks: a person, an event, a schedule or a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from app.db import Database
from app.domain.errors import Conflict, ExpressionError, Invalid
from app.domain.jsonvalue import dumps
from app.domain.models import Actor, NewEvent, Run
from app.domain.shape import MAX_BYTES
from app.ids import new_id
from app.services import concurrency, definitions, idempotency
from app.services import metronomes as metronome_service
from app.services.concurrency import Free
from app.store import metronomes, runs, starts, versions
from app.store.concurrency import CANCEL_OLDEST, REJECT, Policy
from app.store.starts import Created, Grouped, NewRun

MAX_INPUT_BYTES = 10_000_000  # as JSON; a request's own limit is lower as a rule
_TRIES = 10  # that a workflow is looked at again, when it was changed just then


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller wants to be run.

    Without version and definition it is the published version, or the draft where there is none;
    with ``use`` "draft" it is the draft anyway. ``derived`` says that the definition was made and
    checked by us. ``event`` is what started the run: it is recorded with it, as matched.
    ``waits`` lets the run wait for a place where the workflow's limit would reject it.
    ``entry_nodes`` are the triggers at which it begins; where none is named, those of its type.
    ``event_key`` is a second idempotency key, which is never shown: of the event itself.
    ``while_published`` is for what a trigger starts, with its version: there is no run once the
    workflow was paused or that version was taken back.
    """

    input: dict[str, Any] = field(default_factory=dict)
    input_field: str = "input"  # what the caller named it, for errors
    definition: dict[str, Any] | None = None
    derived: bool = False
    version_id: str | None = None
    use: str = "published"  # or draft
    trigger_type: str = "manual"
    entry_nodes: tuple[str, ...] = ()
    idempotency_key: str | None = None
    event_key: str | None = None
    max_attempts: int = 1
    timeout_ms: int | None = None
    attached_project_id: str | None = None
    attached_ticket_id: str | None = None
    waits: bool = False
    while_published: bool = False
    event: NewEvent | None = None


def create(
    db: Database,
    actor: Actor,
    metronome_id: str,
    wanted: RunRequest,
    *,
    tell: Callable[[], None],
    free: Free = concurrency.leave,
) -> tuple[Run, bool]:
    """Queue a run; the run, and False where its idempotency key had been used: the run of then.

    Where the workflow limits its runs, the run may have to wait for a place (``run.admitted``), and
    others may be cancelled for it: where these are very many, ``free`` is told of the group, in
    which there is more to do. ``tell`` is called once there is a new run that can begin. Neither
    may block.

    Raises NotFound, Invalid (definition, versionId, the concurrency key; without an event also an
    idempotency key of a run of another trigger type), or Conflict: archived (metronome_archived),
    nothing to run (nothing_to_run), at its limit (concurrency_limit), not
    what is published (not_published).
    """
    new = NewRun(
        id=new_id("run"),
        metronome_id=metronome_id,
        version_id=wanted.version_id,
        published=wanted.use == "published",
        trigger_type=wanted.trigger_type,
        entry_nodes=_entry_nodes(wanted),
        input=dumps(wanted.input, wanted.input_field, max_bytes=MAX_INPUT_BYTES),
        idempotency_key=wanted.idempotency_key,
        event_key=wanted.event_key,
        max_attempts=wanted.max_attempts,
        timeout_ms=wanted.timeout_ms,
        attached_project_id=wanted.attached_project_id,
        attached_ticket_id=wanted.attached_ticket_id,
        waits=wanted.waits,
        while_published=wanted.while_published,
        event=wanted.event,
    )
    with db.connect() as connection:
        found = _create(connection, actor, new, wanted)
    if isinstance(found, Run):
        if wanted.event is None:
            check_same_type(found, wanted.trigger_type)
        return found, False
    run, policy = found
    if run.admitted:
        tell()
    elif policy is not None and policy.on_limit == CANCEL_OLDEST:
        run = _make_room(db, actor, run, free)
    return run, True


def check_same_type(earlier: Run, trigger_type: str) -> None:
    """Raise Invalid where an idempotency key stands for a run of another trigger type.

    A test is not to be taken for the run itself, nor the other way round.
    """
    if earlier.trigger_type != trigger_type:
        told = f"is that of {earlier.id}, a run of the type {earlier.trigger_type}"
        raise Invalid(
            f"the idempotency key {told}",
            code=idempotency.REUSED,
            details={"idempotencyKey": [told]},
        )


def _entry_nodes(wanted: RunRequest) -> str | None:
    if not wanted.entry_nodes:
        return None
    return dumps(wanted.entry_nodes, "entryNodes", max_bytes=MAX_BYTES)


def _create(
    connection: Connection, actor: Actor, new: NewRun, wanted: RunRequest
) -> Run | tuple[Run, Policy | None]:
    """The new run and the limit on it; or the run that the idempotency key was used for."""
    if wanted.definition is not None:
        if earlier := _checked_inline(connection, actor, new):
            return earlier
        new = replace(new, version_id=_of_inline(connection, actor, new, wanted))
    group: Grouped | None = None
    for _ in range(_TRIES):
        created = starts.create(connection, actor, new, group)
        if created is None:
            raise metronome_service.not_found()
        if created.run is not None:
            return created.run, created.policy
        if earlier := _earlier(connection, actor, new):
            return earlier
        check_can_run(created.metronome_status)
        if created.version_id is None and new.version_id is None:
            new = replace(new, version_id=_of_draft(connection, actor, new.metronome_id))
            continue
        _check_version(created)
        if new.while_published and not created.is_published:
            message = "the metronome was paused, or has published another version or none"
            raise Conflict(message, code="not_published")
        policy = created.policy
        if policy is not None and (group is None or group.expression != policy.expression):
            group = _group(new, policy, wanted, created.version_id or "")
        elif policy is not None and not new.waits and policy.on_limit == REJECT and group:
            raise Conflict(
                concurrency.describe(policy, group.key),
                code="concurrency_limit",
                details={
                    "maxConcurrentRuns": policy.most,
                    "concurrencyKey": group.key,
                    "runIds": list(created.at_work),
                },
            )
        elif policy is None:
            group = None
    raise Conflict("the metronome is being changed, or a run of it; send the request again")


def _group(new: NewRun, policy: Policy, wanted: RunRequest, version_id: str) -> Grouped:
    try:
        key = concurrency.key_of(
            policy.expression,
            run=concurrency.scope_of_run(new.id, new.metronome_id, version_id),
            trigger_type=new.trigger_type,
            input=wanted.input,
        )
    except ExpressionError as error:
        raise Invalid(
            f"the metronome's concurrency key can't be told: {error.message}",
            code="concurrency_key",
            details={wanted.input_field: [error.message]},
        ) from None
    return Grouped(key, policy.expression)


def _make_room(db: Database, actor: Actor, run: Run, free: Free) -> Run:
    """Cancel the oldest runs of the group; the new run as it is then."""
    group = (run.metronome_id, run.concurrency_key or "")
    free(concurrency.make_room(db, group, actor), actor)
    now = db.read(
        lambda connection: runs.get(connection, run.organization_id, run.metronome_id, run.id)
    )
    return now or run


def _checked_inline(connection: Connection, actor: Actor, new: NewRun) -> Run | None:
    """Whether a definition may be run here; the run that the idempotency key was used for."""
    metronome = metronomes.get(connection, actor.organization_id, new.metronome_id)
    if metronome is None:
        raise metronome_service.not_found()
    if earlier := _earlier(connection, actor, new):
        return earlier
    check_can_run(metronome.status)
    return None


def _of_inline(connection: Connection, actor: Actor, new: NewRun, wanted: RunRequest) -> str:
    """The version that a definition becomes which came with the request."""
    definition = wanted.definition or {}
    if wanted.derived:
        document = dumps(definition, "definition", max_bytes=MAX_BYTES)
    else:
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
    if version_id is None:
        raise metronome_service.not_found()
    return version_id


def _of_draft(connection: Connection, actor: Actor, metronome_id: str) -> str:
    """The first run since the draft was saved makes the draft a version."""
    metronome = metronomes.get(connection, actor.organization_id, metronome_id)
    if metronome is None:
        raise metronome_service.not_found()
    if definitions.runs_nothing(metronome.definition):
        raise Conflict("the definition has no node that could run", code="nothing_to_run")
    version_id = versions.of_draft(connection, actor, metronome_id)
    if version_id is None:
        raise metronome_service.not_found()
    return version_id


def _earlier(connection: Connection, actor: Actor, new: NewRun) -> Run | None:
    if new.idempotency_key is None:  # without one there is no event's key either
        return None
    return starts.with_idempotency_key(
        connection, actor.organization_id, new.metronome_id, new.idempotency_key, new.event_key
    )


def check_can_run(metronome_status: str) -> None:
    """Raise Conflict where a workflow of this status takes no new runs."""
    if metronome_status == metronomes.ARCHIVED:
        raise Conflict(
            "the metronome is archived and takes no new runs; set its status to run it again",
            code="metronome_archived",
        )


def _check_version(created: Created) -> None:
    if created.version_id is None:
        message = "is not a version of this metronome"
    elif created.version_status == starts.ARCHIVED_VERSION:
        message = "was deleted, and can't be run any more"
    else:
        return
    raise Invalid(f"versionId {message}", details={"versionId": [message]})
