"""What waits until it is on disk, and what need not: a claim has nothing to lose in a crash."""

from __future__ import annotations

import pytest

from app.db import RawConnection
from app.domain.lifecycle import QUEUED
from app.store import boundary, leases
from tests.store.world import World, step

_SPY = """
CREATE FUNCTION pg_temp.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE NOTICE 'synchronous_commit is %', current_setting('synchronous_commit');
    RETURN new;
END $$;
CREATE TRIGGER spy BEFORE UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION pg_temp.tell();
CREATE TRIGGER spy BEFORE INSERT ON steps FOR EACH ROW EXECUTE FUNCTION pg_temp.tell();
"""


def _durable(world: World) -> RawConnection:
    """A connection that waits for the disk, as all do but on the tests' server."""
    connection = world.raw()
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
    return connection


def _told(connection: RawConnection) -> list[str]:
    """The settings under which runs and steps have been written since it was last asked."""
    told = [notice.split()[-1] for notice in connection.notices]
    connection.notices.clear()
    return told


def _setting(connection: RawConnection) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        return str(cursor.fetchall()[0][0])


@pytest.mark.parametrize("prepared", [True, False])
def test_only_the_claim_does_not_wait_for_the_disk(world: World, prepared: bool) -> None:
    connection = _durable(world)
    if prepared:
        leases.prepare(connection)
    boundary.prepare(connection)
    world.put(QUEUED)
    with connection.cursor() as cursor:
        cursor.execute(_SPY)
    try:
        (claimed,) = leases.claim(connection, "executor-1", limit=1, lease=60)
        assert _told(connection) == ["off"]
        assert _setting(connection) == "on"

        (verdict,) = boundary.write(connection, [step(claimed, start=1)])
        assert verdict.answer == "go"
        assert set(_told(connection)) == {"on"}
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER spy ON runs; DROP TRIGGER spy ON steps")


def test_a_take_over_is_on_disk_before_its_run_is_walked(world: World) -> None:
    lost = world.put(QUEUED)
    world.claim("executor-1")
    world.expire(lost)
    connection = _durable(world)
    (owner,) = leases.claim(connection, "executor-2", limit=1, lease=60)
    assert (owner.lost, owner.takeovers) == (True, 1)

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn()")
        (claimed,) = cursor.fetchall()[0]
        leases.disown(connection, owner.id, owner.token)
        cursor.execute("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", (claimed,))
        assert cursor.fetchall() == [(True,)]
