"""Publishing: which version of a workflow runs, and what its triggers start.

To look at a large definition takes a while, so that is done before the workflow is locked; where
another one is found there then, it is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from app.db import Database
from app.domain.connectors import Connector
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.models import Actor, Deployment, Metronome, Page, Version
from app.ids import new_id
from app.services import definitions, listening, validation
from app.services import metronomes as metronome_service
from app.services import versions as version_service
from app.store import metronomes, publishing, saved_versions, triggers, versions

Connectors = Mapping[str, Connector]
_TRIES = 5  # while others change what is to be published


@dataclass(frozen=True, slots=True)
class _Looked:
    """What was found of a definition: its fault, if it can't be published.

    ``revision`` is what the version had then, or for the draft the workflow; None where the
    definition came with the request.
    """

    revision: int | None
    fault: Invalid | None


class _Changed(Exception):
    """What is to be published is not what was looked at."""


def publish(
    db: Database,
    actor: Actor,
    metronome_id: str,
    version_id: str,
    changes: Mapping[str, Any],
    *,
    expected: tuple[int, ...] | None,
    connectors: Connectors,
) -> Metronome:
    """Publish a version; ``changes`` (definition, description) are made to it first.

    All of it is one transaction. The version that was published before is saved again; what is
    published already stays as it is. ``expected`` are the revisions of which the workflow must have
    one. Raises NotFound, PreconditionFailed, Invalid (``not_publishable``), Refused (it is
    published, and would be changed) or Conflict (the workflow or the version is archived, or the
    version was only run).
    """
    stored = _stored(changes)

    def look(connection: Connection) -> _Looked:
        found = versions.get(connection, actor.organization_id, metronome_id, version_id)
        draft = None if found is None else (found.definition, found.revision)
        return _look(connection, actor, metronome_id, changes, draft, connectors)

    def act(connection: Connection, looked: _Looked) -> Metronome:
        before = _locked(connection, actor, metronome_id, expected, version_service.not_found())
        changed = saved_versions.change(connection, actor, metronome_id, version_id, stored)
        if changed is None:
            raise version_service.not_found()
        version = changed.version
        if version.status != versions.PUBLISHED or changed.outcome == "refused":
            version_service.check_can_change(version, "published" if not stored else "changed")
        return _publish(connection, actor, before, version, version.revision, looked)

    return _once_looked_at(db, look, act)


def publish_draft(
    db: Database,
    actor: Actor,
    metronome_id: str,
    changes: Mapping[str, Any],
    *,
    expected: tuple[int, ...] | None,
    connectors: Connectors,
) -> Metronome:
    """Publish the draft: the newest version that equals it, else a new one.

    A ``definition`` in ``changes`` becomes the draft first; a ``description`` is the version's. All
    of it is one transaction. Raises as ``publish``.
    """
    stored = _stored(changes)

    def look(connection: Connection) -> _Looked:
        found = metronomes.get(connection, actor.organization_id, metronome_id)
        draft = None if found is None else (found.definition, found.revision)
        return _look(connection, actor, metronome_id, changes, draft, connectors)

    def act(connection: Connection, looked: _Looked) -> Metronome:
        before = _locked(connection, actor, metronome_id, expected, metronome_service.not_found())
        if "definition" in stored:
            definition = {"definition": stored["definition"]}
            metronomes.update(connection, actor, metronome_id, definition)
        version = _of_draft(connection, actor, before, stored)
        return _publish(connection, actor, before, version, before.revision, looked)

    return _once_looked_at(db, look, act)


def unpublish(
    db: Database,
    actor: Actor,
    metronome_id: str,
    *,
    description: str | None = None,
    expected: tuple[int, ...] | None,
) -> Metronome:
    """Take back what is published: the workflow is a draft, and its triggers start nothing more.

    Its versions stay, and runs go on. ``description`` says why, in the history. One that is a draft
    already stays as it is. Raises NotFound, PreconditionFailed or Conflict (it is archived).
    """
    with db.transaction() as connection:
        before = _locked(connection, actor, metronome_id, expected, metronome_service.not_found())
        if before.published_version_id is None and before.status == publishing.DRAFT:
            return before
        publishing.unpublish(connection, actor, metronome_id, description)
        return _now(connection, before)


def deployments(db: Database, actor: Actor, metronome_id: str, part: Page) -> list[Deployment]:
    """What was published and unpublished, newest first. Raises NotFound."""

    def query(connection: Connection) -> list[Deployment]:
        organization = actor.organization_id
        found = publishing.deployments(connection, organization, metronome_id, part)
        if not found and metronomes.get(connection, organization, metronome_id) is None:
            raise metronome_service.not_found()
        return found

    return db.read(query)


def _once_looked_at(
    db: Database,
    look: Callable[[Connection], _Looked],
    act: Callable[[Connection, _Looked], Metronome],
) -> Metronome:
    """What ``act`` answers in a transaction, when that finds what ``look`` had found before."""
    for _ in range(_TRIES):
        looked = db.read(look)
        try:
            with db.transaction() as connection:
                return act(connection, looked)
        except _Changed:
            continue
    raise Conflict("the metronome is being changed just now; send the request again")


def _look(
    connection: Connection,
    actor: Actor,
    metronome_id: str,
    changes: Mapping[str, Any],
    found: tuple[dict[str, Any], int] | None,
    connectors: Connectors,
) -> _Looked:
    """Whether a definition can be published: that of ``changes``, else the one that was found."""
    definition, revision = changes.get("definition"), None
    if definition is None:
        if found is None:
            return _Looked(-1, None)  # there is nothing; what comes meanwhile has another number
        definition, revision = found
    try:
        validation.demand_publishable(connection, actor, metronome_id, definition, connectors)
    except Invalid as fault:
        return _Looked(revision, fault)
    return _Looked(revision, None)


def _stored(changes: Mapping[str, Any]) -> dict[str, str | None]:
    stored = dict(changes)
    if "definition" in stored:
        stored["definition"] = definitions.checked(stored["definition"])
    return stored


def _locked(
    connection: Connection,
    actor: Actor,
    metronome_id: str,
    expected: tuple[int, ...] | None,
    unknown: NotFound,
) -> Metronome:
    """The workflow, locked, where it is one of those revisions and not archived."""
    metronome = publishing.lock(connection, actor.organization_id, metronome_id)
    if metronome is None:
        raise unknown
    if expected is not None and metronome.revision not in expected:
        raise metronome_service.changed_meanwhile(metronome)
    if metronome.status == metronomes.ARCHIVED:
        raise Conflict(
            "the metronome is archived; set its status to publish it again",
            code="metronome_archived",
        )
    return metronome


def _of_draft(
    connection: Connection, actor: Actor, metronome: Metronome, stored: Mapping[str, str | None]
) -> Version:
    """The saved version that holds the draft, made now where there is none."""
    described = {name: stored[name] for name in ("description",) if name in stored}
    known = saved_versions.equal(connection, metronome.id, None)
    if known is not None:
        changed = saved_versions.change(connection, actor, metronome.id, known, described)
        if changed is not None and changed.outcome != "refused":
            return changed.version
    # What is published keeps its description, so one with another description is a new version.
    saved = saved_versions.save(
        connection,
        actor,
        metronome.id,
        version_id=new_id("ver"),
        definition=None,
        description=described.get("description"),
    )
    if saved is None:  # the row is locked, so it can't be
        raise metronome_service.not_found()
    return saved[0]


def _publish(
    connection: Connection,
    actor: Actor,
    before: Metronome,
    version: Version,
    revision: int,
    looked: _Looked,
) -> Metronome:
    """Publish a version; ``revision`` is to be that of what was looked at."""
    is_now = version.id == before.published_version_id and before.status == publishing.ACTIVE
    if not is_now and looked.revision not in (None, revision):
        raise _Changed
    if not is_now and looked.fault is not None:
        raise looked.fault
    listens = listening.of_definition(connection, version.id, version.definition)
    if is_now:
        triggers.sync(connection, actor.organization_id, before.id, listens)
    else:
        publishing.publish(connection, actor, version, listens)
    return _now(connection, before)


def _now(connection: Connection, before: Metronome) -> Metronome:
    found = metronomes.get(connection, before.organization_id, before.id)
    return before if found is None else found
