"""Versions of workflows: save, list, change, archive and compare them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from app.db import Database
from app.domain import diff
from app.domain.errors import Conflict, Invalid, NotFound, Refused
from app.domain.models import Actor, Page, Version
from app.ids import new_id
from app.services import definitions, idempotency
from app.services import metronomes as metronome_service
from app.store import metronomes, saved_versions, versions
from app.store.versions import VersionFilter


def not_found() -> NotFound:
    """The one answer for a version that is unknown, or of another workflow or organization."""
    return NotFound("metronome or version not found", code="version_not_found")


def save(
    db: Database,
    actor: Actor,
    metronome_id: str,
    *,
    definition: dict[str, Any] | None = None,
    description: str | None = None,
    idempotency_key: str | None = None,
) -> tuple[Version, bool]:
    """Save a version with the next number; without ``definition`` it is the draft as it stands.

    False with it where the idempotency key was used before: then it is the version of then.
    Raises NotFound, or Invalid where the definition is not sound, or the key was another request's.
    """
    version_id = new_id("ver")
    with db.connect() as connection:
        if definition is not None or idempotency_key is not None:
            _known(connection, actor, metronome_id)
        document = None if definition is None else definitions.checked(definition)
        version_id = idempotency.reserve(
            connection,
            actor,
            f"versions:{metronome_id}",
            idempotency_key,
            new_id=version_id,
            request={"definition": definition, "description": description},
        )
        saved = saved_versions.save(
            connection,
            actor,
            metronome_id,
            version_id=version_id,
            definition=document,
            description=description,
        )
    if saved is None:
        raise metronome_service.not_found()
    return saved


def page(
    db: Database, actor: Actor, metronome_id: str, part: Page, wanted: VersionFilter
) -> tuple[list[Version], int]:
    """A page of the saved versions, the newest first, and how many fit in (see the store).

    Raises NotFound.
    """

    def query(connection: Connection) -> tuple[list[Version], int]:
        organization = actor.organization_id
        found, fit = versions.page(connection, organization, metronome_id, part, wanted)
        if not found:
            _known(connection, actor, metronome_id)
        return found, fit

    return db.read(query)


def get(
    db: Database, actor: Actor, metronome_id: str, version_id: str, *, revision: int | None = None
) -> Version:
    """The version, whatever its status: as it is now, or as it was at a revision.

    Raises NotFound.
    """
    found = db.read(
        lambda connection: versions.get(
            connection, actor.organization_id, metronome_id, version_id, revision=revision
        )
    )
    if found is None:
        raise not_found()
    return found


def change(
    db: Database, actor: Actor, metronome_id: str, version_id: str, changes: Mapping[str, Any]
) -> Version:
    """Change ``definition`` and ``description``, as far as ``changes`` names them.

    Runs that were created before keep their definition. Raises NotFound, Invalid (the definition is
    not sound), Refused (it is published) or Conflict (it is archived, or was only run).
    """
    known = get(db, actor, metronome_id, version_id)
    check_can_change(known, "changed")
    stored = dict(changes)
    if "definition" in stored:
        stored["definition"] = definitions.checked(stored["definition"])
    with db.connect() as connection:
        changed = saved_versions.change(connection, actor, metronome_id, version_id, stored)
    return _done(changed, "changed")


def archive(db: Database, actor: Actor, metronome_id: str, version_id: str) -> None:
    """Archive a version: it is in no list and takes no new runs; twice is once.

    Raises NotFound, Refused (it is published) or Conflict (it was only run).
    """
    with db.connect() as connection:
        _done(saved_versions.archive(connection, actor, metronome_id, version_id), "deleted")


def compare(
    db: Database, actor: Actor, metronome_id: str, version_id: str, against_id: str
) -> tuple[Version, Version, diff.Difference]:
    """What has changed from the version ``against_id`` (the first one answered) to the other one.

    Raises NotFound, or Invalid where ``against_id`` is no version of the workflow.
    """
    target = get(db, actor, metronome_id, version_id)
    try:
        base = get(db, actor, metronome_id, against_id)
    except NotFound:
        message = "is not a version of this metronome"
        raise Invalid(
            f"againstVersionId {message}", details={"againstVersionId": [message]}
        ) from None
    return base, target, diff.compare(base.definition, target.definition)


def check_can_change(version: Version, what: str) -> None:
    """Raise Refused or Conflict where a version can't be ``what``: changed, say."""
    if version.version is None:
        # What was made for a test of a part has nodes that only we put there.
        sound = not definitions.errors(version.definition)
        advice = "; save its definition as a new version" if sound else ""
        raise Conflict(
            f"this version was only run and never saved, so it can't be {what}{advice}",
            code="version_not_saved",
        )
    if version.status == versions.PUBLISHED:
        raise Refused(
            f"version v{version.version} is published and can't be {what};"
            " unpublish the metronome first, or save a new version",
            code="version_published",
        )
    if version.status == versions.ARCHIVED:
        raise Conflict(
            f"version v{version.version} is deleted and can't be {what}", code="version_archived"
        )


def _known(connection: Connection, actor: Actor, metronome_id: str) -> None:
    if metronomes.get(connection, actor.organization_id, metronome_id) is None:
        raise metronome_service.not_found()


def _done(changed: saved_versions.Changed | None, what: str) -> Version:
    if changed is None:
        raise not_found()
    if changed.outcome == "refused":
        check_can_change(changed.version, what)
    return changed.version
