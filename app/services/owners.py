"""The owners of workflows: who could be one, and giving a workflow to another user."""

from __future__ import annotations

from sqlalchemy import Connection

from app.db import Database
from app.domain.errors import Invalid
from app.domain.models import Actor, Metronome, OwnerCandidate, Page
from app.services.metronomes import checked, not_found
from app.store import metronomes, owners


def candidates(db: Database, actor: Actor, metronome_id: str, part: Page) -> list[OwnerCandidate]:
    """A page of the users of the organization that could own a workflow, by id. Raises NotFound.

    They are those that have a key which is not revoked.
    """

    def query(connection: Connection) -> list[OwnerCandidate] | None:
        found = owners.candidates(connection, actor.organization_id, metronome_id, part)
        if found or metronomes.get(connection, actor.organization_id, metronome_id):
            return found
        return None

    found = db.read(query)
    if found is None:
        raise not_found()
    return found


def transfer(
    db: Database,
    actor: Actor,
    metronome_id: str,
    user_id: str,
    *,
    expected: tuple[int, ...] | None = None,
) -> Metronome:
    """Give a workflow, and what its triggers start from now on, to another user.

    ``expected`` are the revisions of which the workflow must have one; None: any.
    Raises NotFound, PreconditionFailed, or Invalid where the user is no candidate.
    """
    with db.connect() as connection:
        made = metronomes.transfer(connection, actor, metronome_id, user_id, expected=expected)
    made = checked(made)
    if made.refused == "owner":
        told = "has no API key in this organization"
        raise Invalid(f"ownerUserId: {told}", details={"ownerUserId": [told]})
    return made.metronome
