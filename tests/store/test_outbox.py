from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from app.domain.lifecycle import CANCELLED, FAILED
from app.store import outbox, runs
from app.store.outbox import OUTBOX_CHANNEL, Notice
from tests.store.world import ACTOR, METRONOME, ORGANIZATION, Ear, World


def put(world: World, run_id: str = "run_1", seq: int = 1, **columns: str) -> str:
    """A message that is due; ``columns`` are SQL expressions."""
    values = {
        "id": f"'out_' || {len(world.query('SELECT id FROM outbox')):03d}",
        "organization_id": f"'{ORGANIZATION}'",
        "metronome_id": f"'{METRONOME}'",
        "run_id": f"'{run_id}'",
        "seq": str(seq),
        "node_id": "'n1'",
        "connector": "'action'",
        "event": "'node.cancelled'",
        "due_at": "clock_timestamp()",
        **columns,
    }
    world.execute(f"INSERT INTO outbox ({', '.join(values)}) VALUES ({', '.join(values.values())})")
    row: str = world.query("SELECT id FROM outbox ORDER BY created_at DESC LIMIT 1")[0]["id"]
    return row


def claim(world: World, **options: Any) -> list[Notice]:
    """Claim as an executor does."""
    return outbox.claim(world.raw(), **{"limit": 10, "lease": 60.0, **options})


def ids(notices: list[Notice]) -> list[str]:
    return [notice.id for notice in notices]


def test_the_fragment_writes_a_message_for_each_dispatched_step(world: World) -> None:
    heard = Ear(world, OUTBOX_CHANNEL)
    steps = """SELECT * FROM (VALUES ('run_1', 1, 'met_a', 'org_a', 'n1', 'action', 'x'),
        ('run_1', 2, 'met_a', 'org_a', 'n2', NULL, 'x'),
        ('run_1', 3, 'met_a', 'org_a', 'n3', 'action', 'y'))
        AS s (run_id, seq, metronome_id, organization_id, node_id, connector, status)"""
    told = outbox.insert("steps", "node.paused", where="status = 'x'")
    world.execute(f"WITH steps AS ({steps}), told AS ({told}) SELECT 1 WHERE false")
    (row,) = world.query("SELECT * FROM outbox")
    assert (row["run_id"], row["seq"], row["node_id"]) == ("run_1", 1, "n1")
    assert (row["event"], row["connector"], row["attempts"]) == ("node.paused", "action", 0)
    assert row["due_at"] is not None
    assert heard.all() == [""]


def test_a_claim_takes_what_is_due_and_says_what_became_of_the_run(world: World) -> None:
    run_id = world.put(CANCELLED)
    world.put_step(run_id, 3, FAILED, error="'timed out'", node_type="'imagine'")
    mine = put(world, run_id, 3)
    gone = put(world, "run_gone")
    put(world, "run_later", due_at="clock_timestamp() + interval '1 minute'")
    put(world, "run_given_up", due_at="NULL")
    first, second = claim(world)
    assert (first.id, second.id) == (mine, gone)
    assert (first.node_kind, first.step_error, first.run_status) == (
        "imagine",
        "timed out",
        CANCELLED,
    )
    assert (second.node_kind, second.step_error, second.run_status) == (None, None, None)
    assert first.attempts == 1


def test_what_is_claimed_is_left_alone_until_the_claim_ends(world: World) -> None:
    mine = put(world)
    assert ids(claim(world)) == [mine]
    assert claim(world) == []
    assert 50 < (outbox.next_due(world.raw()) or 0) <= 60
    world.execute("UPDATE outbox SET due_at = clock_timestamp()")
    (again,) = claim(world)
    assert (again.id, again.attempts) == (mine, 2)


def test_no_message_is_claimed_by_two(world: World) -> None:
    expected = sorted(put(world, f"run_{number}") for number in range(60))
    connections = [world.raw() for _ in range(6)]

    def take(number: int) -> list[str]:
        found: list[str] = []
        while some := outbox.claim(connections[number], limit=3, lease=60.0):
            found += ids(some)
        return found

    with ThreadPoolExecutor(6) as threads:
        taken = [one for found in threads.map(take, range(6)) for one in found]
    # A claim passes over what others are just taking, so a few may be left at the end.
    while some := claim(world):
        taken += ids(some)
    assert sorted(taken) == expected


def test_connectors_that_are_busy_wait_their_turn(world: World) -> None:
    put(world, "run_1", connector="'slow'")
    quick = put(world, "run_2", connector="'quick'")
    assert ids(claim(world, busy=["slow"])) == [quick]
    assert outbox.next_due(world.raw(), busy=["slow", "quick"]) is None
    assert (outbox.next_due(world.raw(), busy=["quick"]) or 0) <= 0


def test_a_message_that_a_newer_one_has_overtaken_is_dropped(world: World) -> None:
    put(world, event="'node.paused'")
    put(world, event="'node.resumed'")
    other = put(world, seq=2, event="'node.paused'")
    newest = put(world, event="'node.cancelled'")
    assert sorted(ids(claim(world))) == sorted([newest, other])
    assert len(world.query("SELECT id FROM outbox")) == 2


def test_a_newer_message_is_looked_up_by_its_step(world: World) -> None:
    world.execute(
        "INSERT INTO outbox (id, organization_id, metronome_id, run_id, seq, node_id, connector,"
        " event, due_at) SELECT 'out_x' || n, 'org_a', 'met_a', 'run_' || n, 1, 'n', 'action',"
        " 'node.cancelled', clock_timestamp() FROM generate_series(1, 5000) n"
    )
    world.execute("ANALYZE outbox")
    with world.raw().cursor() as cursor:
        cursor.execute(f"EXPLAIN {outbox.CLAIM}", {"limit": 10, "lease": 60, "busy": []})
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "outbox_by_step on outbox n" in plan
    assert "outbox_given_up" in plan
    assert "Seq Scan on outbox" not in plan


def test_what_was_given_up_long_ago_is_forgotten(world: World) -> None:
    days = outbox.KEPT_DAYS
    long_ago = f"clock_timestamp() - interval '{days} days 1 minute'"
    young = f"clock_timestamp() - interval '{days - 1} days'"
    put(world, "run_1", due_at="NULL", created_at=long_ago)
    kept = [
        put(world, "run_2", due_at="NULL", created_at=young),
        put(world, "run_3", due_at="clock_timestamp() + interval '1 hour'", created_at=long_ago),
    ]
    assert claim(world) == []
    left = world.query("SELECT id, run_id FROM outbox ORDER BY id")
    assert [row["run_id"] for row in left] == ["run_2", "run_3"]
    assert len(left) == len(kept)


def test_what_was_given_up_goes_with_its_run(world: World) -> None:
    run_id = world.put(CANCELLED)
    nested = world.put(CANCELLED, parent=run_id)
    for number, one in enumerate((run_id, nested, "run_other")):
        put(world, one, number, due_at="NULL")
    put(world, run_id, 9)  # is yet to be sent
    with world.db.connect() as connection:
        assert runs.delete(connection, ACTOR, METRONOME, run_id)
    left = world.query("SELECT run_id, seq FROM outbox ORDER BY seq")
    assert [tuple(row.values()) for row in left] == [("run_other", 2), (run_id, 9)]


def test_what_has_arrived_is_gone(world: World) -> None:
    put(world)
    (notice,) = claim(world)
    outbox.delivered(world.raw(), notice)
    assert world.query("SELECT * FROM outbox") == []
    assert outbox.next_due(world.raw()) is None


def test_an_executor_whose_claim_has_ended_writes_nothing(world: World) -> None:
    put(world)
    (old,) = claim(world)
    world.execute("UPDATE outbox SET due_at = clock_timestamp()")
    claim(world)
    before = world.everything()["outbox"]
    outbox.delivered(world.raw(), old)
    assert not outbox.failed(world.raw(), old, error="x", wait=1, most=9, age=99)
    assert world.everything()["outbox"] == before


def test_what_did_not_arrive_is_tried_again_later(world: World) -> None:
    put(world)
    (notice,) = claim(world)
    assert not outbox.failed(world.raw(), notice, error="HTTP 500", wait=30, most=9, age=99)
    (row,) = world.query("SELECT * FROM outbox")
    assert row["error"] == "HTTP 500"
    assert timedelta(seconds=25) < row["due_at"] - notice.now < timedelta(seconds=35)


@pytest.mark.parametrize(("most", "age"), [(1, 99.0), (9, 0.0)], ids=["attempts", "age"])
def test_what_never_arrives_is_given_up_and_stays(world: World, most: int, age: float) -> None:
    put(world)
    (notice,) = claim(world)
    assert outbox.failed(world.raw(), notice, error="HTTP 500", wait=0, most=most, age=age)
    (row,) = world.query("SELECT * FROM outbox")
    assert (row["due_at"], row["error"]) == (None, "HTTP 500")
    assert claim(world) == []
    assert outbox.next_due(world.raw()) is None
