"""Runs in every state, brought there by the same store functions that an executor uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from app.db import Database, RawConnection
from app.domain.lifecycle import CANCEL, PAUSE
from app.domain.models import Actor
from app.ids import new_id
from app.store import boundary, leases, transitions
from app.store.boundary import Boundary, Move, StepEnd, StepPark, StepStart
from tests.store.world import World

ACTIVE = ("queued", "running", "sleeping", "backoff", "waiting_approval", "paused")
ENDED = ("completed", "failed", "cancelled")

_ACTOR = Actor("key_test", "ada", "acme")
ASKED = '{"title": "Ship it?", "message": null}'
_LATER = datetime.now(UTC) + timedelta(hours=1)


@contextmanager
def raw(db: Database) -> Iterator[RawConnection]:
    """A connection such as an executor has."""
    connection = db.raw()
    boundary.prepare(connection)
    try:
        yield connection
    finally:
        connection.close()


def claim(connection: RawConnection, path: str) -> leases.Claimed:
    """Hold the run of ``path``, which is the only one that is due."""
    (claimed,) = leases.claim(connection, "executor_test", limit=10, lease=60)
    assert claimed.id == path.rpartition("/")[2]
    return claimed


def begin(connection: RawConnection, claimed: leases.Claimed, seq: int, node: str) -> str:
    """Start a node, unless the run was stopped; the boundary's answer."""
    step = StepStart(seq, node, "transform", 1)
    return _write(connection, claimed, starts=[step])


def end(connection: RawConnection, claimed: leases.Claimed, seq: int) -> str:
    """End a node well."""
    return _write(connection, claimed, ends=[StepEnd(seq, "completed", output="{}")])


def _write(connection: RawConnection, claimed: leases.Claimed, **what: object) -> str:
    one = Boundary(claimed.id, claimed.metronome_id, claimed.token, **what)  # type: ignore[arg-type]
    (verdict,) = boundary.write(connection, [one])
    return verdict.answer


def bring(db: Database, path: str, state: str) -> None:
    """Bring a queued run, the only one there is, into ``state``.

    ``running`` means that an executor holds it with the node "n2" in flight, after "n1" has ended.
    """
    if state == "queued":
        return
    if state == "paused":
        _, metronome_id, _, run_id = path.split("/")
        with db.connect() as connection:
            done = transitions.request(connection, PAUSE, _ACTOR, metronome_id, run_id)
            assert done is not None
            assert done.moved
        return
    with raw(db) as connection:
        claimed = claim(connection, path)
        begin(connection, claimed, 1, "n1")
        if state == "sleeping":
            park = StepPark(1, _LATER, output='{"slept": true}')
            _write(connection, claimed, parks=[park], move=Move("sleep", wake_at=_LATER))
            return
        end(connection, claimed, 1)
        if state == "running":
            begin(connection, claimed, 2, "n2")
        elif state == "backoff":
            _write(connection, claimed, move=Move("backoff", wait=3600.0, error="try again"))
        elif state == "waiting_approval":
            begin(connection, claimed, 2, "n2")
            park = StepPark(2, None, output=ASKED, status="waiting_approval")
            _write(connection, claimed, parks=[park], move=Move("await_approval"))
        elif state == "completed":
            _write(connection, claimed, move=Move("complete", output='{"ok": true}'))
        elif state == "failed":
            _write(connection, claimed, move=Move("fail", error="it broke"))
        elif state == "cancelled":
            _write(connection, claimed, move=Move("backoff", wait=0.0))
            _, metronome_id, _, run_id = path.split("/")
            with db.connect() as pooled:
                transitions.request(pooled, CANCEL, _ACTOR, metronome_id, run_id)
        else:
            raise AssertionError(state)


def nested(db: Database, path: str, status: str = "queued", **columns: str) -> str:
    """The path of a run that the run of ``path`` started, in a workflow of its own."""
    world = World(db)
    try:
        metronome, parent = f"met_{new_id('x')[2:]}", path.rpartition("/")[2]
        own = {"organization_id": "'acme'", "metronome_id": f"'{metronome}'", **columns}
        held = own.pop("held", "") == "true"
        run_id = world.put(status, held=held, parent=parent, **own)
    finally:
        world.close()
    return f"metronomes/{metronome}/runs/{run_id}"


def put_step(db: Database, path: str, seq: int, status: str, **columns: str) -> None:
    """A step of the run of ``path``; ``columns`` are SQL expressions."""
    world = World(db)
    try:
        world.put_step(path.rpartition("/")[2], seq, status, **columns)
    finally:
        world.close()


def change(db: Database, path: str, changes: str) -> None:
    """Change columns of the run of ``path`` behind the store's back."""
    with db.connect() as connection:
        connection.execute(
            text(f"UPDATE runs SET {changes} WHERE id = :id"), {"id": path.rpartition("/")[2]}
        )


def audits(db: Database, path: str) -> list[str]:
    """What was audited of the run of ``path`` behind its creation, in order."""
    query = text(
        "SELECT action FROM audit_events WHERE run_id = :id AND action <> 'run.created' ORDER BY id"
    )
    with db.connect() as connection:
        return list(connection.execute(query, {"id": path.rpartition("/")[2]}).scalars())


def count(db: Database, query: str, **values: object) -> int:
    """The number that ``query`` answers."""
    with db.connect() as connection:
        return int(connection.execute(text(query), values).scalar_one())
