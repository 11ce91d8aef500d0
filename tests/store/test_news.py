"""What has come for a step from outside is heard, or else kept where people can read it."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import Future
from typing import Any

import pytest

from app.domain.lifecycle import (
    CANCEL,
    CANCELLED,
    COMPLETED,
    FAILED,
    PAUSED,
    QUEUED,
    RESUME,
    RETRY,
    RUNNING,
    TERMINAL,
    WAITING_APPROVAL,
)
from app.store import callbacks, leases, sweeps
from app.store.callbacks import Place
from app.store.leases import EXECUTOR_LOST, Claimed
from tests.store.world import METRONOME, World, as_held

SHA = hashlib.sha256(b"token").hexdigest()
RESULT = '{"status": "failed", "error": "no paper", "retryable": false}'
LATE = '{"status": "failed", "error": "no paper"}'
STOPPED = "executor stopped"


def dispatched(world: World, status: str = RUNNING, *, told: bool = True, seq: int = 1) -> Claimed:
    """A run of which an executor dispatches a node just now that has, or has not, called back."""
    held = as_held(world.run(world.put(status, held=True)))
    world.put_step(
        held.id,
        seq,
        RUNNING,
        node_id="'ship'",
        unsafe="true",
        connector="'action'",
        callback_sha256=f"'{SHA}'",
        lease_token=f"'{held.token}'",
        metadata="""'{"label": "x"}'""",
    )
    if told:
        world.execute("UPDATE steps SET result = %s WHERE run_id = %s", RESULT, held.id)
    return held


def call(world: World, run_id: str, seq: int = 1) -> str:
    """The connector calls back; what came of it."""
    with world.db.connect() as connection:
        place = Place(METRONOME, run_id, seq)
        found = callbacks.record(connection, place, SHA, result=RESULT, late=LATE)
    assert found is not None
    return found[1]


def lose(world: World, held: Claimed, how: str) -> None:
    """The executor ends without a word, or leaves the node behind."""
    if how == "sweep":
        world.expire(held.id)
        assert sweeps.sweep(world.raw()).runs == (held.id,)
    else:
        leases.let_go(world.raw(), held.id, held.token, error=STOPPED, unfinished=True)


def metadata(world: World, run_id: str, seq: int = 1) -> dict[str, Any]:
    """The metadata of a step."""
    rows = world.query("SELECT metadata FROM steps WHERE run_id = %s AND seq = %s", run_id, seq)
    found: dict[str, Any] = json.loads(rows[0]["metadata"])
    return found


def events(world: World, run_id: str) -> list[tuple[int, str]]:
    """Step and event of all that the connectors of a run have to be told."""
    rows = world.query("SELECT seq, event FROM outbox WHERE run_id = %s ORDER BY seq", run_id)
    return [(row["seq"], row["event"]) for row in rows]


@pytest.mark.parametrize(
    ("how", "status"), [("sweep", PAUSED), ("let_go", PAUSED), ("let_go", RUNNING)]
)
def test_a_step_that_was_called_back_is_parked_when_its_executor_goes(
    world: World, how: str, status: str
) -> None:
    held = dispatched(world, status)
    (before,) = world.steps(held.id)

    lose(world, held, how)

    assert world.steps(held.id) == [{**before, "lease_token": None}]
    run = world.run(held.id)
    assert (run["status"], run["in_doubt"], run["error"]) == (status, False, None)
    assert events(world, held.id) == []
    if status == PAUSED:
        assert world.done(RESUME, held.id).moved
    assert world.claim("executor-2").id == held.id


@pytest.mark.parametrize("how", ["sweep", "let_go"])
@pytest.mark.parametrize("status", TERMINAL)
def test_in_a_run_that_has_ended_it_is_closed_and_its_news_are_kept(
    world: World, status: str, how: str
) -> None:
    held = dispatched(world, status)
    (before,) = world.steps(held.id)

    lose(world, held, how)

    (after,) = world.steps(held.id)
    assert after["completed_at"] is not None
    kept = metadata(world, held.id)
    at = kept["lateCallback"].pop("at")
    assert kept == {"label": "x", "lateCallback": json.loads(LATE)}
    assert at == before["updated_at"].isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert call(world, held.id) == "duplicate"


def test_of_two_steps_that_are_lost_only_the_silent_one_is_in_doubt(world: World) -> None:
    for how in ("sweep", "let_go"):
        held = dispatched(world, PAUSED)
        token = f"'{held.token}'"
        world.put_step(held.id, 2, RUNNING, node_id="'z'", unsafe="true", lease_token=token)
        lose(world, held, how)
        assert [one["status"] for one in world.steps(held.id)] == [RUNNING, FAILED]
        run = world.run(held.id)
        assert run["in_doubt"]
        assert "node z" in run["error"]


def test_a_cancel_keeps_what_nobody_has_heard(world: World) -> None:
    run_id = world.put(RUNNING)
    waits = {"node_id": "'ask'", "metadata": "NULL"}
    world.put_step(run_id, 1, RUNNING, callback_sha256=f"'{SHA}'")
    world.put_step(run_id, 2, WAITING_APPROVAL, **waits)
    world.put_step(run_id, 3, RUNNING)
    assert call(world, run_id) == "recorded"
    decided = world.decide(run_id)
    assert decided is not None
    assert decided.outcome == "decided"

    world.done(CANCEL, run_id)

    first, second, third = world.steps(run_id)
    late = metadata(world, run_id)["lateCallback"]
    assert late.pop("at").endswith("Z")
    assert late == json.loads(LATE)
    assert metadata(world, run_id, 2) == {"lateDecision": json.loads(second["result"])}
    assert {first["status"], second["status"], third["status"]} == {CANCELLED}
    assert third["metadata"] is None


def test_a_run_that_is_given_up_keeps_it_too(world: World) -> None:
    held = dispatched(world)
    leases.close_all(world.raw(), held.id, held.token, "given up")
    assert metadata(world, held.id)["lateCallback"]["error"] == "no paper"
    assert events(world, held.id) == [(1, "node.cancelled")]


@pytest.mark.parametrize("how", ["claim", "let_go"])
def test_what_came_before_a_retry_from_the_start_is_kept_and_not_heard(
    world: World, how: str
) -> None:
    held = dispatched(world)
    world.done(CANCEL, held.id)
    world.done(RETRY, held.id)
    if how == "claim":
        world.expire(held.id)
        assert world.claim("executor-2").lost
    else:
        lose(world, held, how)
    assert world.steps(held.id)[0]["status"] == FAILED
    assert metadata(world, held.id)["lateCallback"]["error"] == "no paper"


def test_a_callback_of_what_was_given_up_by_a_retry_from_the_start_is_late(world: World) -> None:
    held = dispatched(world, told=False)
    world.done(CANCEL, held.id)
    world.done(RETRY, held.id)
    assert call(world, held.id) == "late"
    (step,) = world.steps(held.id)
    assert (step["result"], step["status"]) == (None, RUNNING)
    assert metadata(world, held.id)["lateCallback"]["error"] == "no paper"
    assert not world.run(held.id)["signalled"]


@pytest.mark.parametrize("status", [PAUSED, CANCELLED])
@pytest.mark.parametrize("callback_first", [True, False], ids=["callback", "let_go"])
def test_a_callback_and_an_executor_that_goes_come_one_after_the_other(
    world: World, callback_first: bool, status: str
) -> None:
    """Whichever is first: what the connector said is heard later, or in the metadata."""
    held = dispatched(world, status, told=False)
    deeds = [(call, (world, held.id)), (lose, (world, held, "let_go"))]
    with world.locked(held.id):
        begun: list[Future[Any]] = []
        for deed, arguments in deeds if callback_first else deeds[::-1]:
            begun.append(world.begin(deed, *arguments))  # type: ignore[arg-type]
            world.wait_for_waiters(len(begun))
    outcomes = [one.result(20) for one in begun]

    recorded = callback_first and status == PAUSED
    assert ("recorded" if recorded else "late") in outcomes
    (step,) = world.steps(held.id)
    assert (step["result"] is not None) == recorded
    assert (step["status"] == RUNNING) == recorded
    assert ("lateCallback" in metadata(world, held.id)) != recorded
    assert world.run(held.id)["in_doubt"] == (status == PAUSED and not recorded)


# -- connectors of what is lost


@pytest.mark.parametrize("status", [PAUSED, *TERMINAL])
def test_the_sweep_tells_the_connectors_of_what_it_closes(world: World, status: str) -> None:
    held = dispatched(world, status, told=False)
    token = f"'{held.token}'"
    world.put_step(held.id, 2, RUNNING, lease_token=token)  # of no connector
    world.put_step(held.id, 3, RUNNING, connector="'action'")  # parked
    world.put_step(held.id, 4, COMPLETED, connector="'action'")
    lose(world, held, "sweep")
    assert events(world, held.id) == [(1, "node.cancelled")]
    (row,) = world.query("SELECT organization_id, connector, node_id FROM outbox")
    assert tuple(row.values()) == ("org_a", "action", "ship")


def test_the_claim_tells_the_connectors_of_what_came_before_a_retry(world: World) -> None:
    held = dispatched(world, told=False)
    world.done(CANCEL, held.id)
    world.done(RETRY, held.id)
    world.execute("DELETE FROM outbox")  # the cancel has told it, and that has arrived
    world.expire(held.id)
    assert world.claim("executor-2").lost
    assert events(world, held.id) == [(1, "node.cancelled")]


# -- what closes steps takes the run's lock


def test_a_run_that_is_given_up_waits_for_the_cancel_before_it(world: World) -> None:
    held = as_held(world.run(world.put(RUNNING, held=True)))
    world.put_step(held.id, 1, RUNNING)
    with world.locked(held.id):
        cancelling = world.begin(world.done, CANCEL, held.id)
        world.wait_for_waiters(1)
        closing = world.begin(leases.close_all, world.raw(), held.id, held.token, "given up")
        world.wait_for_waiters(2)
    assert cancelling.result(20).moved
    closing.result(20)
    (step,) = world.steps(held.id)
    assert (step["status"], step["error"]) == (CANCELLED, None)


def test_who_disowns_steps_waits_for_the_run(world: World) -> None:
    held = dispatched(world, QUEUED, told=False)
    with world.locked(held.id):
        disowning = world.begin(leases.disown, world.raw(), held.id, held.token)
        world.wait_for_waiters(1)
    disowning.result(20)


def test_a_cancel_closes_no_step_that_has_ended_meanwhile(world: World) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, RUNNING)
    other = world.db.raw(application_name="test holder")
    try:
        other.autocommit = False
        with other.cursor() as cursor:
            cursor.execute(
                "UPDATE steps SET status = 'completed', completed_at = clock_timestamp()"
                " WHERE run_id = %s",
                (run_id,),
            )
        cancelling = world.begin(world.done, CANCEL, run_id)
        world.wait_for_waiters(1)
        other.commit()
    finally:
        other.close()
    assert cancelling.result(20).moved
    assert world.steps(run_id)[0]["status"] == COMPLETED


def test_a_lost_step_without_news_is_closed_as_ever(world: World) -> None:
    held = dispatched(world, PAUSED, told=False)
    lose(world, held, "sweep")
    (step,) = world.steps(held.id)
    assert (step["status"], step["error"]) == (FAILED, EXECUTOR_LOST)
    assert world.run(held.id)["in_doubt"]
