"""Limits on concurrent runs in the engine's tests: how they are set, and what must never happen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.domain.models import Run
from app.store import sweeps
from app.store.concurrency import HAS_PLACE, Group
from tests.engine.conftest import Lab, node
from tests.engine.operators import sql
from tests.processes import wait_for

GATED = (node("trigger"), node("gate"), node("end"))


def limit(
    lab: Lab, metronome_id: str, most: int | None, on_limit: str = "queue", key: str | None = None
) -> str:
    """Limit the runs of a workflow; its id."""
    sql(
        lab,
        "UPDATE metronomes SET max_concurrent_runs = :most, on_limit = :on_limit,"
        " concurrency_key = :key WHERE id = :id",
        most=most,
        on_limit=on_limit,
        key=key,
        id=metronome_id,
    )
    return metronome_id


def limited(lab: Lab, most: int, on_limit: str = "queue", key: str | None = None) -> str:
    """A workflow whose runs stand at the gate, so many at once."""
    return limit(lab, lab.workflow("limited", *GATED), most, on_limit, key)


def admitted(lab: Lab, run: Run) -> Run:
    """The run, once it has a place in its group."""

    def has_place() -> Run | None:
        now = lab.get(run)
        return now if now.admitted else None

    return wait_for(has_place, message=lambda: f"a place: {lab.get(run)}")


def places(lab: Lab, metronome_id: str) -> dict[str, int]:
    """How many runs have a place, by the key of their group."""
    found = f"SELECT r.concurrency_key, count(*) FROM runs r WHERE {HAS_PLACE}"
    return {
        key: count
        for key, count in sql(lab, f"{found} AND r.metronome_id = :id GROUP BY 1", id=metronome_id)
    }


def stalled(lab: Lab) -> tuple[Group, ...]:
    """The groups in which a sweep would find that somebody could have a place."""
    connection = lab.db.raw()
    try:
        return sweeps.sweep(connection).groups
    finally:
        connection.close()


@contextmanager
def workflow_locked(lab: Lab, metronome_id: str) -> Iterator[None]:
    """Hold the lock of a workflow's row in a session of its own."""
    connection = lab.db.raw(application_name="test holder")
    connection.autocommit = False
    try:
        with connection.cursor() as cursor:
            statement = "SELECT 1 FROM metronomes WHERE id = %s FOR NO KEY UPDATE"
            cursor.execute(statement, (metronome_id,))
        yield
        connection.commit()
    finally:
        connection.close()


def most_at_work(lab: Lab, metronome_id: str) -> dict[str, int]:
    """By group, how many runs had a step in flight at the same time, at the most."""
    rows: list[Any] = sql(
        lab,
        """SELECT r.concurrency_key, s.run_id, s.started_at, s.completed_at
        FROM steps s JOIN runs r ON r.id = s.run_id
        WHERE r.metronome_id = :id AND s.started_at IS NOT NULL""",
        id=metronome_id,
    )
    moments: dict[str, list[Any]] = defaultdict(list)
    for key, run_id, started, ended in rows:
        moments[key] += [(started, 1, run_id), (ended, 0, run_id)]  # an end comes first
    most: dict[str, int] = {}
    for key, found in moments.items():
        at_work: dict[str, int] = defaultdict(int)
        for _, begins, run_id in sorted(found):
            at_work[run_id] += 1 if begins else -1
            busy = sum(1 for count in at_work.values() if count > 0)
            most[key] = max(most.get(key, 0), busy)
    return most
