"""Workflows: create, list, get, change, archive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from app.db import Database
from app.domain.errors import Conflict, ExpressionError, Invalid, NotFound, PreconditionFailed
from app.domain.models import Actor, Metronome, Page
from app.ids import new_id
from app.nodes.bindings import expression_of
from app.services import concurrency, definitions, idempotency, listening
from app.store import metronome_list, metronomes, triggers
from app.store.metronome_list import MetronomeFilter
from app.store.metronomes import NewMetronome, Update

_ACTIVE = "active"
_KEY_NAMES = frozenset({"trigger", "run"})  # what there is when a run is created
_TRIES = 10  # at a change while others publish


def not_found() -> NotFound:
    """The one answer for a workflow that is unknown, or another organization's."""
    return NotFound("metronome not found", code="metronome_not_found")


def changed_meanwhile(metronome: Metronome) -> PreconditionFailed:
    """The answer to a change of a workflow that has none of the revisions that were expected."""
    return PreconditionFailed(
        f'the metronome has changed: its ETag is "{metronome.revision}" now',
        details={"etag": f'"{metronome.revision}"'},
    )


def create(db: Database, actor: Actor, **wanted: Any) -> Metronome:
    """A new workflow of ``actor``; see ``create_once``."""
    return create_once(db, actor, wanted)[0]


def create_once(
    db: Database, actor: Actor, wanted: Mapping[str, Any], *, key: str | None = None
) -> tuple[Metronome, bool]:
    """A new workflow of ``actor``; without a ``definition`` it is empty.

    ``wanted`` has a name, and perhaps definition, description, status, trigger_summary and
    concurrency. Where the idempotency ``key`` was used before, the answer is False and the workflow
    of then, as it is now.
    Raises Invalid where the definition is not sound, or the key was used for something else.
    """
    definition = wanted.get("definition")
    new = NewMetronome(
        id=new_id("met"),
        name=wanted["name"],
        description=wanted.get("description"),
        status=wanted.get("status", "draft"),
        definition=definitions.checked(definitions.EMPTY if definition is None else definition),
        trigger_summary=wanted.get("trigger_summary"),
        **_limits(wanted.get("concurrency")),
    )
    with db.connect() as connection:
        request = asdict(new) | {"id": None, "definition": definition}
        own_id = idempotency.reserve(
            connection, actor, "metronomes", key, new_id=new.id, request=request
        )
        if created := metronomes.create(connection, actor, replace(new, id=own_id)):
            return created, True
        earlier = metronomes.get(connection, actor.organization_id, own_id)
    if earlier is None:
        raise AssertionError("an id was given out twice")
    return earlier, False


def page(db: Database, actor: Actor, wanted: MetronomeFilter, part: Page) -> list[Metronome]:
    """A page of the workflows of the organization, newest first."""
    return db.read(
        lambda connection: metronome_list.page(connection, actor.organization_id, wanted, part)
    )


def get(db: Database, actor: Actor, metronome_id: str) -> Metronome:
    """The workflow, archived or not. Raises NotFound."""
    metronome = db.read(
        lambda connection: metronomes.get(connection, actor.organization_id, metronome_id)
    )
    if metronome is None:
        raise not_found()
    return metronome


def update(
    db: Database,
    actor: Actor,
    metronome_id: str,
    changes: Mapping[str, Any],
    *,
    expected: tuple[int, ...] | None = None,
) -> Update:
    """Change what ``changes`` names: name, status, description, trigger_summary, definition,
    concurrency. What stays the same is no change.

    ``expected`` are the revisions of which the workflow must have one; None: any. Triggers listen
    while the workflow is active.
    Raises NotFound, PreconditionFailed, Conflict, or Invalid where a value is not sound.
    """
    stored = {name: value for name, value in changes.items() if name != "concurrency"}
    if "definition" in stored:
        # Known first: what is wrong with a definition is no concern of a workflow that isn't there.
        get(db, actor, metronome_id)
        stored["definition"] = definitions.checked(stored["definition"])
    if "concurrency" in changes:
        stored |= _limits(changes["concurrency"])
    for _ in range(_TRIES):
        with db.connect() as connection:
            resumed = None
            if stored.get("status") == _ACTIVE:
                resumed = listening.of_published(connection, actor.organization_id, metronome_id)
            made = metronomes.update(
                connection, actor, metronome_id, stored, expected=expected, resumed=resumed
            )
            if resumed is not None and made is not None and made.refused is None:
                triggers.sync(connection, actor.organization_id, metronome_id, resumed)
        if made is None or made.refused != "stale":
            break
    else:
        raise Conflict("the metronome is being published just now; send the request again")
    done = checked(made)
    if "concurrency" in done.changed:
        concurrency.readmit(db, metronome_id, actor)
    return done


def archive(
    db: Database, actor: Actor, metronome_id: str, *, expected: tuple[int, ...] | None = None
) -> None:
    """Archive a workflow, so that it takes no new runs; twice is once.

    Raises NotFound or PreconditionFailed.
    """
    with db.connect() as connection:
        checked(metronomes.archive(connection, actor, metronome_id, expected=expected))


def checked(made: Update | None) -> Update:
    """A change that was made. Raises NotFound, or PreconditionFailed, where it was not."""
    if made is None:
        raise not_found()
    if made.refused == "precondition":
        raise changed_meanwhile(made.metronome)
    return made


def _limits(limit: Mapping[str, Any] | None) -> dict[str, Any]:
    """The columns that hold a limit on concurrent runs; None: no limit."""
    if limit is None:
        return {"max_concurrent_runs": None, "on_limit": "queue", "concurrency_key": None}
    key = limit.get("key")
    if key is not None:
        _check_key(key)
    return {
        "max_concurrent_runs": limit["max_concurrent_runs"],
        "on_limit": limit.get("on_limit", "queue"),
        "concurrency_key": key,
    }


def _check_key(source: str) -> None:
    """Raise Invalid where this can't tell the group of a run that is being created."""
    try:
        unknown = sorted({path[0] for path in expression_of(source).names()} - _KEY_NAMES)
        told = f"there is no {unknown[0]} before the run has begun" if unknown else ""
    except ExpressionError as error:
        told = error.message
    if told:
        raise Invalid(f"concurrency.key: {told}", details={"concurrency.key": [told]})
