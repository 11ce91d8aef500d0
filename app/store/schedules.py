"""Schedules: which triggers are due, and when they are due next.

``triggers.next_due_at`` is the due time that has not been dealt with yet. It is moved on once there
is a run for it, and only from the value that was read: so any number of executors may be at it,
and any of them may die in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select, text

from app.domain.models import Page
from app.domain.schedule import TRIGGER_TYPE
from app.store.schema import triggers

SCHEDULE: Final = "schedule"  # on the channel of due runs: the times of schedules have changed


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule and its next due time; ``now`` is the database's time when that was read."""

    id: str
    organization_id: str
    metronome_id: str
    version_id: str
    user_id: str  # the workflow's owner
    node_id: str
    config: Mapping[str, Any]
    due_at: datetime
    now: datetime


# Where nothing is due it answers what is due next: so it is known how long there is to wait.
_NEXT = text("""
SELECT t.id, t.organization_id, t.metronome_id, t.version_id, t.user_id, t.node_id, t.config,
    t.next_due_at, clock_timestamp()
FROM triggers t
WHERE t.next_due_at <= greatest(now(), (SELECT min(next_due_at) FROM triggers))
ORDER BY t.next_due_at
LIMIT :limit
""")


def upcoming(connection: Connection, *, limit: int) -> list[Due]:
    """Up to ``limit`` schedules that are due, or without any those that are due next."""
    return [Due(*row) for row in connection.execute(_NEXT, {"limit": limit})]


_MOVE = text("""
UPDATE triggers SET next_due_at = :next_due_at WHERE id = :id AND next_due_at = :due_at
""")


def move_on(connection: Connection, due: Due, next_due_at: datetime | None) -> bool:
    """Say that a due time has been dealt with; False where somebody else has, or it is gone."""
    values = {"id": due.id, "due_at": due.due_at, "next_due_at": next_due_at}
    return connection.execute(_MOVE, values).rowcount == 1


# for a statement that is sent anyway
SECONDS = "extract(epoch FROM (SELECT min(next_due_at) FROM triggers) - clock_timestamp())::float8"


@dataclass(frozen=True, slots=True)
class Listed:
    """A schedule as it is listed."""

    id: str
    metronome_id: str
    version_id: str
    user_id: str  # the workflow's owner
    node_id: str
    config: Mapping[str, Any]
    paused: bool
    next_due_at: datetime | None  # None where it is paused, or never due any more
    created_at: datetime


_LISTED = [triggers.c[field.name] for field in fields(Listed)]


def page(
    connection: Connection, organization_id: str, metronome_id: str | None, page: Page
) -> list[Listed]:
    """The schedules of an organization, or of one workflow of it, newest first."""
    query = (
        select(*_LISTED)
        .where(triggers.c.organization_id == organization_id)
        .where(triggers.c.trigger_type == TRIGGER_TYPE)
        .order_by(triggers.c.id.desc())
        .limit(page.limit)
        .offset(page.offset)
    )
    if page.after is not None:
        query = query.where(triggers.c.id < page.after)
    if metronome_id is not None:
        query = query.where(triggers.c.metronome_id == metronome_id)
    return [Listed(*row) for row in connection.execute(query)]
