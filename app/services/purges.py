"""Delete what ended long ago, so that the disk does not fill."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection

from app.db import Database
from app.domain.models import Actor
from app.services.keys import BY_COMMAND
from app.store import purges, runs

PART = 500  # rows of a statement: it is done soon, and holds few locks

Delete = Callable[..., list[str]]


class Purged(NamedTuple):
    """How many were deleted; nested runs go with the runs above them and are not counted."""

    runs: int
    audit_events: int
    trigger_events: int


def purge(db: Database, *, days: int) -> Purged:
    """Delete the runs that ended more than ``days`` days ago, with their steps and nested runs.

    Then the audit and trigger events of that age whose run is gone. What is deleted is committed
    part by part: where it is interrupted, the next time goes on. It may run beside everything else.
    """
    with db.connect() as connection:
        before = purges.cutoff(connection, days)
        return Purged(
            _runs(connection, before),
            _events(connection, before, purges.audit_events),
            _events(connection, before, purges.trigger_events),
        )


def _runs(connection: Connection, before: datetime) -> int:
    count, after = 0, ""
    while found := purges.runs(connection, before, PART, after=after):
        for run in found:
            actor = Actor(BY_COMMAND, BY_COMMAND, run.organization_id)
            # not where somebody has just retried it, or a nested run of it is still held
            count += runs.delete(connection, actor, run.metronome_id, run.id)
        after = found[-1].id
    return count


def _events(connection: Connection, before: datetime, delete: Delete) -> int:
    count, after = 0, ""
    while gone := delete(connection, before, PART, after=after):
        count, after = count + len(gone), max(gone)
    return count
