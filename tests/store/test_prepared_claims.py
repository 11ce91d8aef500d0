"""The claim, planned once for each connection."""

from __future__ import annotations

import re

from app.domain.lifecycle import QUEUED
from app.store import leases
from app.store.prepared import PLANNER
from tests.store.world import World


def test_the_prepared_claim_is_planned_once_for_tables_of_any_size(world: World) -> None:
    connection = world.raw()
    leases.prepare(connection)
    with connection.cursor() as cursor:
        cursor.execute(
            f"{PLANNER}; EXPLAIN {leases._EXECUTE}",
            {"executor": "e", "limit": 5, "lease": 60.0},
        )
        plan = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute(
            "SELECT generic_plans FROM pg_prepared_statements WHERE name = %s", (leases._PREPARED,)
        )
        assert cursor.fetchall() == [(1,)]
    assert "runs_due on runs" in plan
    assert "Seq Scan on" not in plan
    by_key = re.findall(r"Index Scan using (?:runs|steps)_pkey", plan)
    assert len(by_key) == 3, plan


def test_a_claim_is_made_whatever_has_become_of_the_prepared_one(world: World) -> None:
    connection = world.raw()
    leases.prepare(connection)
    leases.prepare(connection)  # as where a pooler hands out a server that has it already
    with connection.cursor() as cursor:
        for _ in range(2):
            run_id = world.put(QUEUED)
            assert [one.id for one in leases.claim(connection, "e", limit=5, lease=60)] == [run_id]
            cursor.execute("DEALLOCATE ALL")


def test_a_claim_leaves_no_setting_behind_on_its_session(world: World) -> None:
    connection = world.db.raw()
    with connection.cursor() as cursor:
        settings = "SELECT name, setting FROM pg_settings ORDER BY name"
        cursor.execute(settings)
        before = cursor.fetchall()
        leases.prepare(connection)
        leases.claim(connection, "e", limit=5, lease=60)
        cursor.execute(settings)
        assert cursor.fetchall() == before
    connection.close()
