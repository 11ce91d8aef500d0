"""What is old and over, to be deleted a part at a time.

All ids sort by time, so each part is read from the primary key behind the part before it, and what
is kept is passed over once. Runs themselves are deleted as everybody deletes them: see ``runs.py``.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.ids import first_id

_CUTOFF = text("SELECT now() - :days * interval '1 day'")

_RUNS = text("""
SELECT id, metronome_id, organization_id FROM runs
WHERE id > :after AND id < :before AND created_at < :cutoff
  AND parent_run_id IS NULL AND completed_at < :cutoff AND lease_token IS NULL
ORDER BY id LIMIT :limit
""")

# What runs have left behind. Of workflows, versions and keys all is kept, and so is the history of
# what was published, which is read from here.
_AUDIT_EVENTS = text("""
DELETE FROM audit_events WHERE id = ANY (ARRAY(
    SELECT e.id FROM audit_events e
    WHERE e.id > :after AND e.id < :before AND e.created_at < :cutoff AND e.run_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM runs r WHERE r.id = e.run_id)
    ORDER BY e.id LIMIT :limit
))
RETURNING id
""")

# The last ones of a workflow stay: its summary shows them.
_TRIGGER_EVENTS = text("""
DELETE FROM trigger_events WHERE id = ANY (ARRAY(
    SELECT e.id FROM trigger_events e
    WHERE e.id > :after AND e.id < :before AND e.created_at < :cutoff
      AND NOT EXISTS (SELECT FROM runs r WHERE r.id = e.run_id)
      AND NOT EXISTS (
          SELECT FROM trigger_totals t
          WHERE t.metronome_id = e.metronome_id AND t.trigger_type = e.trigger_type
            AND e.id IN (t.last_event_id, t.last_matched_event_id)
      )
    ORDER BY e.id LIMIT :limit
))
RETURNING id
""")


class OldRun(NamedTuple):
    """A run at the top of a tree that ended long ago."""

    id: str
    metronome_id: str
    organization_id: str


def cutoff(connection: Connection, days: int) -> datetime:
    """The moment of so many days ago, by the clock of the database."""
    found: datetime = connection.execute(_CUTOFF, {"days": days}).scalar_one()
    return found


def runs(connection: Connection, before: datetime, limit: int, *, after: str = "") -> list[OldRun]:
    """The next runs, behind the id ``after``, that had ended ``before``; not nested ones."""
    values = _part("run", before, limit, after)
    return [OldRun(*row) for row in connection.execute(_RUNS, values)]


def audit_events(
    connection: Connection, before: datetime, limit: int, *, after: str = ""
) -> list[str]:
    """Delete events from ``before`` of runs that are gone; their ids."""
    values = _part("evt", before, limit, after)
    return list(connection.execute(_AUDIT_EVENTS, values).scalars())


def trigger_events(
    connection: Connection, before: datetime, limit: int, *, after: str = ""
) -> list[str]:
    """Delete deliveries from ``before`` that started no run, or one that is gone; their ids."""
    values = _part("tev", before, limit, after)
    return list(connection.execute(_TRIGGER_EVENTS, values).scalars())


def _part(prefix: str, before: datetime, limit: int, after: str) -> dict[str, object]:
    # clocks of hosts may differ a little from the database's: created_at decides
    return {"after": after, "before": first_id(prefix, before), "cutoff": before, "limit": limit}
