"""Locks that end with their session, and what becomes of the runs of those who had one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from app.db import Database, RawConnection
from app.domain.lifecycle import CANCELLED, PAUSED, QUEUED, RUNNING
from app.store import executors, leases, liveness, sweeps
from app.store.leases import DUE_CHANNEL
from app.store.liveness import EXECUTORS, LIFELINE, WATCH, Peer
from tests.processes import PATIENCE, wait_for
from tests.store.world import Ear, World

NAME = "a-host-of-which-the-name-is-rather-long.example.org:4711:ab12cd"


@contextmanager
def session(world: World, kind: str, owner: str = NAME) -> Iterator[RawConnection]:
    """A connection of an executor."""
    db = Database(world.db.url.render_as_string(hide_password=False), owner=owner)
    with closing(db.raw(application_name=kind)) as connection:
        pid = connection.info.backend_pid
        yield connection
    query = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
    wait_for(lambda: not world.query(query, pid))


def _die(world: World, name: str = NAME) -> None:
    """Begin to live, and die."""
    with session(world, LIFELINE, name) as connection:
        assert liveness.hold(connection, name, 4) is True


def _peer(connection: RawConnection, name: str = NAME) -> Peer:
    (found,) = (peer for peer in liveness.look(connection) if peer.id == name)
    return found


def test_the_lock_is_seen_for_as_long_as_its_session_lives(world: World) -> None:
    assert liveness.look(world.raw()) == []
    heard = Ear(world, DUE_CHANNEL)
    with session(world, LIFELINE) as connection:
        assert liveness.hold(connection, NAME, 4) is True
        assert heard.all() == [EXECUTORS]
        assert _peer(world.raw()).pid == connection.info.backend_pid
        with session(world, LIFELINE) as second:
            assert liveness.hold(second, NAME, 4) is False
    assert _peer(world.raw()).pid is None


def test_who_waits_for_a_lock_hears_of_its_end_and_leaves_it_free(world: World) -> None:
    watch = world.raw()
    with session(world, LIFELINE) as connection:
        liveness.hold(connection, NAME, 4)
        peer = _peer(watch)
        waiting: Future[list[Peer]] = world.begin(lambda: liveness.look(watch, peer, PATIENCE))
        world.wait_for_waiters(1)
    assert [one.pid for one in waiting.result(PATIENCE)] == [None]
    with session(world, LIFELINE) as connection:
        assert liveness.hold(connection, NAME, 4) is True


def test_a_wait_that_is_over_or_cancelled_is_no_error(world: World) -> None:
    watch = world.raw()
    with session(world, LIFELINE) as connection:
        liveness.hold(connection, NAME, 4)
        peer = _peer(watch)
        assert liveness.look(watch, peer, 0.01) == [peer]
        waiting: Future[list[Peer]] = world.begin(lambda: liveness.look(watch, peer, PATIENCE))
        world.wait_for_waiters(1)
        watch.cancel()
        assert waiting.result(PATIENCE) == [peer]


def test_the_leases_of_the_dead_end_and_nobody_elses(world: World) -> None:
    late = "clock_timestamp() + interval '1 hour'"
    mine = {"locked_by": f"'{NAME}'", "due_at": late}
    held = [world.put(status, held=True, **mine) for status in (RUNNING, QUEUED, PAUSED, CANCELLED)]
    other = world.put(RUNNING, held=True, due_at=late)
    sleeping = world.put(RUNNING, due_at=late)
    before = {run_id: world.run(run_id) for run_id in (*held, other, sleeping)}
    _die(world)
    heard = Ear(world, DUE_CHANNEL)

    assert liveness.bury(world.raw(), NAME) == 4

    assert heard.all() == [""]

    (now,) = world.query("SELECT clock_timestamp() AS now")
    for run_id in held:
        assert world.run(run_id)["due_at"] <= now["now"]
        assert world.run(run_id) == {**before[run_id], "due_at": world.run(run_id)["due_at"]}
    assert {one: world.run(one) for one in (other, sleeping)} == {
        one: before[one] for one in (other, sleeping)
    }
    assert world.query("SELECT 1 FROM executors") == []
    claimed = leases.claim(world.raw(), "heir", limit=9, lease=60)
    assert {(one.id, one.lost) for one in claimed} == {(held[0], True), (held[1], True)}
    assert set(sweeps.sweep(world.raw()).runs) == set(held[2:])
    assert liveness.bury(world.raw(), NAME) is None


def test_a_lease_that_has_ended_by_itself_keeps_its_place_in_the_queue(world: World) -> None:
    ended = "clock_timestamp() - interval '1 minute'"
    run_id = world.put(RUNNING, held=True, locked_by=f"'{NAME}'", due_at=ended)
    before = world.run(run_id)
    _die(world)
    assert liveness.bury(world.raw(), NAME) == 0
    assert world.run(run_id) == before


@pytest.mark.parametrize("kind", [LIFELINE, "metronome claims", "metronome writer"])
def test_nobody_is_buried_who_has_a_session_left(world: World, kind: str) -> None:
    run_id = world.put(RUNNING, held=True, locked_by=f"'{NAME}'")
    before = world.run(run_id)
    _die(world)
    with session(world, kind):
        assert liveness.bury(world.raw(), NAME) is None
    assert world.run(run_id) == before
    assert liveness.bury(world.raw(), NAME) == 1


def test_nobody_is_buried_whose_lock_is_held_whatever_the_session_is_called(world: World) -> None:
    with closing(world.db.raw(application_name="somebody")) as connection:
        liveness.hold(connection, NAME, 4)
        assert liveness.bury(world.raw(), NAME) is None


def test_the_watch_of_the_dead_may_still_wait_for_somebody(world: World) -> None:
    _die(world)
    with session(world, WATCH):
        assert liveness.bury(world.raw(), NAME) == 0


def test_who_never_had_a_lock_is_not_missed(world: World) -> None:
    executors.seen(world.raw(), NAME, 4)
    assert liveness.look(world.raw()) == []
    assert liveness.bury(world.raw(), NAME) is None
    _die(world)
    executors.seen(world.raw(), NAME, 4)
    assert _peer(world.raw()).pid is None
    liveness.unwatched(world.raw(), NAME)
    assert liveness.look(world.raw()) == []


def test_a_burial_locks_runs_in_the_order_of_their_ids(world: World) -> None:
    first, second = (world.put(RUNNING, held=True, locked_by=f"'{NAME}'") for _ in range(2))
    _die(world)
    with world.locked(first):
        burying = world.begin(lambda: liveness.bury(world.raw(), NAME))
        world.wait_for_waiters(1)
        with world.locked(second):
            pass  # it does not have this one yet
    assert burying.result(PATIENCE) == 2


def test_behind_a_pooler_no_lock_is_taken(world: World) -> None:
    with session(world, LIFELINE) as connection:
        pooled = SimpleNamespace(cursor=connection.cursor, info=SimpleNamespace(backend_pid=1))
        assert liveness.hold(cast(RawConnection, pooled), NAME, 4) is None
        assert liveness.look(world.raw()) == []


@pytest.mark.parametrize(
    ("told", "supported"),
    [
        ({"server_version": "17.5 (Debian 17.5-1)"}, True),
        ({"server_version": "15.12-YB-2025.1.0.0-b0"}, False),
        ({"server_version": "13.0.0", "crdb_version": "CockroachDB CCL v25.2.0"}, False),
    ],
)
def test_other_databases_are_known_by_what_they_tell(told: dict[str, str], supported: bool) -> None:
    connection = SimpleNamespace(info=SimpleNamespace(parameter_status=told.get))
    assert liveness.is_supported(cast(RawConnection, connection)) is supported


def test_the_server_has_an_age(world: World) -> None:
    first = liveness.server_age(world.raw())
    assert 0 < first < liveness.server_age(world.raw())
