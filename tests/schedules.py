"""Published workflows with a schedule, as the tests of schedules need them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import text

from app.clock import iso
from app.db import Database
from app.domain.models import Actor
from app.services import metronomes, publishing


def publish(db: Database, actor: Actor, *configs: dict[str, Any], **workflow: Any) -> str:
    """The id of a published workflow with a periodic trigger for each config: s0, s1, ..."""
    nodes = [
        {"id": f"s{number}", "kind": "trigger", "subtype": "periodic", "config": config}
        for number, config in enumerate(configs)
    ]
    edges = [{"source": node["id"], "target": "end"} for node in nodes]
    definition = {"nodes": [*nodes, {"id": "end", "kind": "end"}], "edges": edges}
    made = metronomes.create(db, actor, name="scheduled", definition=definition, **workflow)
    publishing.publish_draft(db, actor, made.id, {}, expected=None, connectors={})
    return made.id


def set_due(db: Database, metronome_id: str, moment: datetime | None) -> None:
    """Let the schedules of a workflow be due at another time."""
    with db.connect() as connection:
        connection.execute(
            text("UPDATE triggers SET next_due_at = :due WHERE metronome_id = :id"),
            {"due": moment, "id": metronome_id},
        )


def next_due(db: Database, metronome_id: str) -> datetime | None:
    """When the only schedule of a workflow is due next."""
    with db.connect() as connection:
        found: datetime | None = connection.execute(
            text("SELECT next_due_at FROM triggers WHERE metronome_id = :id"), {"id": metronome_id}
        ).scalar_one()
    return found


def now(db: Database) -> datetime:
    """The database's time."""
    with db.connect() as connection:
        found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found


def runs_by_time(db: Database, metronome_id: str) -> dict[str, int]:
    """How many runs each due time has, by the time as the runs' input tells it."""
    with db.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT input ->> 'scheduledTime', count(*) FROM runs WHERE metronome_id = :id"
                " GROUP BY 1 ORDER BY 1"
            ),
            {"id": metronome_id},
        )
        return {row[0]: row[1] for row in rows}


def told(*moments: datetime) -> dict[str, int]:
    """What ``runs_by_time`` is to be where each of these times has one run."""
    return {iso(moment) or "": 1 for moment in moments}
