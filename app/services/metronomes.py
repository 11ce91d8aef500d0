"""Workflows: create, list, get, change, archive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.db import Database
from app.domain.errors import NotFound
from app.domain.models import Actor, Metronome
from app.ids import new_id
from app.services import definitions
from app.store import metronomes


def not_found() -> NotFound:
    """The one answer for a workflow that is unknown, or another organization's."""
    return NotFound("metronome not found", code="metronome_not_found")


def create(
    db: Database,
    actor: Actor,
    *,
    name: str,
    definition: dict[str, Any] | None = None,
    description: str | None = None,
    status: str = "draft",
    trigger_summary: str | None = None,
) -> Metronome:
    """A new workflow of ``actor``; without ``definition`` it is empty.

    Raises Invalid where the definition is not sound.
    """
    new = metronomes.NewMetronome(
        id=new_id("met"),
        name=name,
        description=description,
        status=status,
        definition=definitions.checked(definitions.EMPTY if definition is None else definition),
        trigger_summary=trigger_summary,
    )
    with db.connect() as connection:
        return metronomes.create(connection, actor, new)


def page(
    db: Database,
    actor: Actor,
    *,
    statuses: tuple[str, ...],
    include_archived: bool,
    limit: int,
    offset: int,
) -> list[Metronome]:
    """Up to ``limit`` workflows of the organization, newest first."""
    return db.read(
        lambda connection: metronomes.page(
            connection,
            actor.organization_id,
            statuses=statuses,
            include_archived=include_archived,
            limit=limit,
            offset=offset,
        )
    )


def get(db: Database, actor: Actor, metronome_id: str) -> Metronome:
    """The workflow, archived or not. Raises NotFound."""
    metronome = db.read(
        lambda connection: metronomes.get(connection, actor.organization_id, metronome_id)
    )
    if metronome is None:
        raise not_found()
    return metronome


def update(db: Database, actor: Actor, metronome_id: str, changes: Mapping[str, Any]) -> Metronome:
    """Change what ``changes`` names: name, status, description, trigger_summary, definition.

    Raises NotFound, or Invalid where the definition is not sound.
    """
    if not changes:
        return get(db, actor, metronome_id)
    stored = dict(changes)
    if "definition" in stored:
        # Known first: what is wrong with a definition is no concern of a workflow that isn't there.
        get(db, actor, metronome_id)
        stored["definition"] = definitions.checked(stored["definition"])
    with db.connect() as connection:
        metronome = metronomes.update(connection, actor, metronome_id, stored)
    if metronome is None:
        raise not_found()
    return metronome


def archive(db: Database, actor: Actor, metronome_id: str) -> None:
    """Archive a workflow, so that it takes no new runs; twice is once. Raises NotFound."""
    with db.connect() as connection:
        if not metronomes.archive(connection, actor, metronome_id):
            raise not_found()
