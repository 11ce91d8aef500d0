"""What people and accidents do to runs in the engine's tests, and what must hold afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import text

from app.domain.lifecycle import Action
from app.domain.models import Decided, Decision, Run, Step, Transitioned
from app.store import decisions, retries, transitions
from benchmarks.checks import CHECKS
from tests.engine.conftest import ACTOR, Lab, node
from tests.processes import wait_for

# Those of the checks that hold whatever a test has done to its runs.
ALWAYS = (
    "steps left open",
    "runs held for ever",
    "runs that ended by themselves with a step that ended later",
)


ENDLESS = node("delay", "endless", seconds=3600)


def calls(workflow_id: str, id: str = "call", **config: Any) -> dict[str, Any]:
    """A node that runs another workflow."""
    return node("metronome", id, workflowId=workflow_id, **config)


def gated(lab: Lab, name: str = "child") -> str:
    """A workflow that ends when the test opens the gate."""
    return lab.workflow(name, node("trigger"), node("gate"), node("end", output={"n": 7}))


def sql(lab: Lab, statement: str, **values: Any) -> list[Any]:
    """The rows of a statement."""
    with lab.db.connect() as connection:
        result = connection.execute(text(statement), values)
        return list(result.all()) if result.returns_rows else []


def request(lab: Lab, action: Action, run: Run, *, confirm: bool = False) -> Transitioned:
    """Ask for cancel, pause or resume of a run."""
    with lab.db.connect() as connection:
        done = transitions.request(
            connection, action, ACTOR, run.metronome_id, run.id, confirm=confirm
        )
    assert done is not None
    return done


def retry(lab: Lab, run: Run, *, afresh: bool) -> None:
    """Retry a run, from the start or behind its finished steps."""
    with lab.db.connect() as connection:
        done = retries.retry(connection, ACTOR, run.metronome_id, run.id, afresh=afresh)
    assert done is not None
    assert done.moved
    lab.tell()


def decide(lab: Lab, run: Run, approved: bool, node_id: str | None = None) -> Decided:
    """Approve or reject what a run waits for."""
    decision = Decision(approved=approved, comment="so be it", node_id=node_id)
    with lab.db.connect() as connection:
        done = decisions.decide(connection, ACTOR, run.metronome_id, run.id, decision)
    assert done is not None
    return done


def children(lab: Lab, run: Run) -> list[Run]:
    """The runs that a run has started, in order."""
    found = "SELECT metronome_id, id FROM runs WHERE parent_run_id = :id ORDER BY id"
    rows = sql(lab, found, id=run.id)
    return [lab.get_by(*row) for row in rows]


def child(lab: Lab, run: Run) -> Run:
    """The run's only nested run, once it is there."""
    (found,) = wait_for(lambda: children(lab, run))
    return found


def step(lab: Lab, run: Run, node_id: str) -> Step:
    """The last step of a node."""
    return [one for one in lab.trace(run) if one.node_id == node_id][-1]


def waits(lab: Lab, run: Run, status: str = "running") -> Run:
    """The run, once it waits with this status and nobody holds it."""

    def parked() -> Run | None:
        now = lab.get(run)
        begun = any(one.status in ("running", "waiting_approval") for one in lab.trace(run))
        return now if begun and now.status == status and now.locked_by is None else None

    return wait_for(parked, 10, lambda: f"{status}: {lab.get(run)} {lab.trace(run)}")


def due(lab: Lab, run: Run) -> str:
    """When the run is due, as text: ``infinity`` where only news can wake it."""
    ((moment,),) = sql(lab, "SELECT CAST(due_at AS text) FROM runs WHERE id = :id", id=run.id)
    return str(moment)


def lose(lab: Lab, run: Run) -> None:
    """End the lease on a run, as if its executor were gone."""
    past = "UPDATE runs SET due_at = clock_timestamp() - interval '1 second' WHERE id = :id"
    sql(lab, past, id=run.id)
    lab.tell()


@contextmanager
def locked(lab: Lab, run: Run) -> Iterator[None]:
    """Hold the lock of a run's row in a session of its own."""
    connection = lab.db.raw(application_name="test holder")
    connection.autocommit = False
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM runs WHERE id = %s FOR NO KEY UPDATE", (run.id,))
        yield
        connection.commit()
    finally:
        connection.close()


def wait_for_lock_waiters(lab: Lab, count: int, application: str = "%") -> None:
    """Return once ``count`` sessions of this application wait for a lock; no executor's watch."""
    waiting = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND wait_event <> 'advisory'
        AND application_name LIKE :application"""
    wait_for(
        lambda: sql(lab, waiting, application=application)[0][0] >= count,
        10,
        f"{count} sessions that wait for a lock",
    )


class Cancelling(threading.Thread):
    """A cancel in a thread of its own."""

    def __init__(self, lab: Lab, run: Run) -> None:
        super().__init__(daemon=True)
        self._lab, self._run = lab, run
        self.done: Transitioned | None = None
        self.start()

    def run(self) -> None:
        """Cancel."""
        self.done = self._lab.cancel(self._run)

    def result(self) -> Transitioned:
        """What it came to."""
        self.join(15)
        assert self.done is not None, "the cancel has not been answered"
        return self.done


def is_whole(lab: Lab) -> None:
    """No step is open in what has ended, nothing started late, and the times make sense."""
    wait_for(lambda: not sql(lab, "SELECT 1 FROM runs WHERE lease_token IS NOT NULL"))
    for name in ALWAYS:
        assert sql(lab, CHECKS[name]) == [], name
    late = """SELECT s.run_id, s.node_id FROM steps s JOIN runs r ON r.id = s.run_id
        WHERE s.started_at > r.completed_at"""
    assert sql(lab, late) == []
    twice = """SELECT run_id, node_id, attempt FROM steps WHERE started_at IS NOT NULL
        GROUP BY run_id, node_id, parent_seq, iteration, attempt HAVING count(*) > 1"""
    assert sql(lab, twice) == []
    assert sql(lab, "SELECT run_id, seq FROM steps WHERE completed_at < started_at") == []
    orphans = """SELECT c.id FROM runs c JOIN runs p ON p.id = c.parent_run_id
        WHERE p.completed_at IS NOT NULL AND c.completed_at IS NULL"""
    assert sql(lab, orphans) == [], "nested runs that go on below a run that has ended"


def ended(run: Run) -> datetime:
    """When a run ended."""
    assert run.completed_at is not None
    return run.completed_at
