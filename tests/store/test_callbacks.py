from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta

import pytest

from app.db import Database
from app.domain.lifecycle import (
    CANCEL,
    CANCELLED,
    CLAIMABLE,
    COMPLETED,
    FAILED,
    PAUSE,
    PAUSED,
    RESUME,
    RUN_STATUSES,
    RUNNING,
    TERMINAL,
    WAITING_APPROVAL,
)
from app.store import callbacks
from app.store.callbacks import Place
from app.store.leases import DUE_CHANNEL
from tests.store.world import METRONOME, Ear, World

SHA = hashlib.sha256(b"token").hexdigest()
DONE = '{"status": "completed", "output": {"n": 1}}'
LATE = '{"status": "completed", "output": {"n": 1}}'
WAITING = """'{"callback": {"deadline": "2999-01-01T00:00:00Z", "heartbeatMs": 60000}}'"""


def parked(world: World, status: str = RUNNING, **columns: str) -> str:
    """A run of this status with a step that waits for a callback; ``columns`` are the step's."""
    run_id = world.put(status)
    if status in CLAIMABLE:
        world.execute("UPDATE runs SET due_at = 'infinity' WHERE id = %s", run_id)
    values = {"callback_sha256": f"'{SHA}'", "connector": "'action'", **columns}
    world.put_step(run_id, 1, RUNNING, **values)
    return run_id


def call(db: Database, run_id: str, *, seq: int = 1, sha256: str = SHA, result: str = DONE) -> str:
    """What recording the end of a step came to; "none" where there is no such step."""
    with db.connect() as connection:
        place = Place(METRONOME, run_id, seq)
        found = callbacks.record(connection, place, sha256, result=result, late=LATE)
    return "none" if found is None else found[1]


def beat(db: Database, run_id: str, sha256: str = SHA) -> tuple[str, str] | None:
    """A heartbeat."""
    with db.connect() as connection:
        return callbacks.beat(connection, Place(METRONOME, run_id, 1), sha256)


@pytest.mark.parametrize("status", [RUNNING, WAITING_APPROVAL])
def test_a_callback_is_stored_and_wakes_the_run(world: World, status: str) -> None:
    run_id = parked(world, status)
    before, heard = world.run(run_id), Ear(world, DUE_CHANNEL)
    assert call(world.db, run_id) == "recorded"
    (step,), run = world.steps(run_id), world.run(run_id)
    assert json.loads(step["result"]) == json.loads(DONE)
    assert (step["status"], step["completed_at"]) == (RUNNING, None)
    assert run["signalled"]
    assert run["due_at"] <= step["updated_at"] + timedelta(seconds=60)
    changed = {name for name in run if run[name] != before[name]}
    assert changed == {"signalled", "due_at"}
    assert heard.all() == [""]
    assert world.claim().id == run_id


def test_a_run_that_is_held_is_signalled_and_stays_held(world: World) -> None:
    held = world.held()
    world.put_step(held.id, 1, RUNNING, callback_sha256=f"'{SHA}'", lease_token=f"'{held.token}'")
    due_at = world.run(held.id)["due_at"]
    assert call(world.db, held.id) == "recorded"  # before its 202 was even read
    run = world.run(held.id)
    assert (run["signalled"], run["due_at"]) == (True, due_at)


def test_a_run_that_is_paused_is_not_woken_but_will_know(world: World) -> None:
    run_id = parked(world, PAUSED)
    assert call(world.db, run_id) == "recorded"
    run = world.run(run_id)
    assert (run["signalled"], run["due_at"], run["status"]) == (True, None, PAUSED)


def test_the_second_callback_changes_nothing(world: World) -> None:
    run_id = parked(world)
    call(world.db, run_id)
    before = world.everything()
    assert call(world.db, run_id, result='{"status": "failed"}') == "duplicate"
    assert world.everything() == before


def test_a_step_that_its_callback_has_ended_knows_it_as_a_duplicate(world: World) -> None:
    run_id = parked(world, result=f"'{DONE}'")
    world.execute("UPDATE steps SET status = 'completed', completed_at = clock_timestamp()")
    assert call(world.db, run_id) == "duplicate"


@pytest.mark.parametrize("ended", [COMPLETED, FAILED, CANCELLED])
@pytest.mark.parametrize("metadata", ["NULL", """'{"waitsFor": "callback"}'"""])
def test_a_late_callback_is_kept_and_changes_nothing_else(
    world: World, ended: str, metadata: str
) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, ended, callback_sha256=f"'{SHA}'", metadata=metadata)
    before = world.everything()
    assert call(world.db, run_id) == "late"
    after = world.everything()
    kept = json.loads(after["steps"][0].pop("metadata"))
    before["steps"][0].pop("metadata")
    assert after == before
    late = kept.pop("lateCallback")
    assert kept == (json.loads(metadata[1:-1]) if metadata != "NULL" else {})
    assert late.pop("at").endswith("Z")
    assert late == json.loads(LATE)
    (step,) = world.steps(run_id)
    assert call(world.db, run_id) == "late"
    assert world.steps(run_id) == [step]  # the first one stays


@pytest.mark.parametrize("status", TERMINAL)
def test_a_callback_to_a_node_that_drains_is_late(world: World, status: str) -> None:
    run_id = world.put(status, held=True)
    world.put_step(run_id, 1, RUNNING, callback_sha256=f"'{SHA}'", lease_token="'token'")
    assert call(world.db, run_id) == "late"
    (step,) = world.steps(run_id)
    assert step["result"] is None
    assert not world.run(run_id)["signalled"]


@pytest.mark.parametrize(
    "wrong", [{"sha256": "0" * 64}, {"seq": 2}, {"sha256": ""}], ids=["token", "step", "empty"]
)
def test_who_has_not_the_token_of_the_step_changes_nothing(
    world: World, wrong: dict[str, object]
) -> None:
    run_id = parked(world)
    world.put_step(run_id, 2, RUNNING, callback_sha256="'1'")
    world.put_step(run_id, 3, RUNNING)
    before = world.everything()
    assert call(world.db, run_id, **wrong) == "none"  # type: ignore[arg-type]
    assert call(world.db, "run_none") == "none"
    assert call(world.db, run_id, seq=3) == "none"
    assert beat(world.db, run_id, "0" * 64) is None
    assert world.everything() == before


def test_the_token_of_a_step_is_found_by_its_whole_place(world: World) -> None:
    run_id = parked(world)
    with world.db.connect() as connection:
        for place, found in (
            (Place(METRONOME, run_id, 1), SHA),
            (Place("met_b", run_id, 1), None),
            (Place(METRONOME, "run_b", 1), None),
            (Place(METRONOME, run_id, 2), None),
        ):
            assert callbacks.token_sha256(connection, place) == found


def test_a_callback_behind_a_cancel_is_late(world: World) -> None:
    run_id = parked(world)
    with world.locked(run_id) as other:
        called = world.begin(call, world.db, run_id)
        world.wait_for_waiters()
        with other.cursor() as cursor:
            cursor.execute(
                "UPDATE runs SET status = 'cancelled', completed_at = clock_timestamp(),"
                " due_at = NULL WHERE id = %s",
                (run_id,),
            )
            cursor.execute(
                "UPDATE steps SET status = 'cancelled', completed_at = clock_timestamp()"
                " WHERE run_id = %s",
                (run_id,),
            )
    assert called.result(30) == "late"
    run = world.run(run_id)
    assert (run["status"], run["signalled"]) == (CANCELLED, False)


def test_a_callback_at_the_moment_of_a_cancel_comes_before_it_or_behind(world: World) -> None:
    for _ in range(30):
        run_id = parked(world)
        called = world.begin(call, world.db, run_id)
        world.done(CANCEL, run_id)
        outcome, (step,) = called.result(30), world.steps(run_id)
        assert step["status"] == CANCELLED
        assert outcome == ("recorded" if step["result"] else "late")
        assert world.run(run_id)["due_at"] is None


# -- heartbeats


def test_a_heartbeat_puts_the_end_of_the_wait_off(world: World) -> None:
    run_id = parked(world, output=WAITING, wake_at="clock_timestamp()")
    before, run = world.steps(run_id)[0], world.run(run_id)
    assert beat(world.db, run_id) == (RUNNING, RUNNING)
    (after,) = world.steps(run_id)
    put_off: datetime = after["wake_at"]
    assert timedelta(seconds=60) <= put_off - before["wake_at"] < timedelta(seconds=120)
    assert world.run(run_id) == run


def test_a_heartbeat_does_not_put_it_off_beyond_the_deadline(world: World) -> None:
    near = WAITING.replace("2999", "2001")
    run_id = parked(world, output=near, wake_at="clock_timestamp()")
    beat(world.db, run_id)
    assert world.steps(run_id)[0]["wake_at"].year == 2001


@pytest.mark.parametrize(
    "columns",
    [
        {"output": "NULL", "wake_at": "clock_timestamp()"},
        {"output": """'{"callback": {"deadline": "2999-01-01Z"}}'""", "wake_at": "'2998-01-01Z'"},
        {"output": WAITING, "wake_at": "clock_timestamp()", "result": f"'{DONE}'"},
        {"output": WAITING, "wake_at": "NULL", "lease_token": "'token'"},
    ],
    ids=["no callback", "no heartbeat", "has ended", "in flight"],
)
def test_a_heartbeat_that_nobody_waits_for_changes_nothing(
    world: World, columns: dict[str, str]
) -> None:
    run_id = parked(world, **columns)
    before = world.everything()
    assert beat(world.db, run_id) == (RUNNING, RUNNING)
    assert world.everything() == before


@pytest.mark.parametrize("status", RUN_STATUSES)
def test_a_heartbeat_tells_what_has_become_of_the_run(world: World, status: str) -> None:
    run_id = world.put(status)
    world.put_step(run_id, 1, CANCELLED, callback_sha256=f"'{SHA}'")
    assert beat(world.db, run_id) == (CANCELLED, status)


def test_silence_during_a_pause_does_not_count(world: World) -> None:
    run_id = parked(world, output=WAITING, wake_at="clock_timestamp() + interval '1 second'")
    other = parked(world, wake_at="'2998-01-01Z'")
    world.done(PAUSE, run_id)
    world.execute("UPDATE steps SET wake_at = '2001-01-01Z' WHERE run_id = %s", run_id)
    world.done(RESUME, run_id)
    (step,) = world.steps(run_id)
    assert step["wake_at"] - world.run(run_id)["updated_at"] == timedelta(seconds=60)
    assert world.steps(other)[0]["wake_at"].year == 2998
