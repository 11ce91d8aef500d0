from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from app.db import Database
from app.domain.connectors import Connector
from app.engine import courier as module
from app.engine.courier import Courier
from app.ids import step_id
from app.nodes import signed
from tests.connectors import OTHER_SECRET, Receiver, connector
from tests.processes import free_port, wait_for
from tests.store.world import METRONOME, ORGANIZATION, World

Start = Callable[..., Courier]


@pytest.fixture
def world(db: Database) -> Iterator[World]:
    """The outbox, to be filled."""
    made = World(db)
    yield made
    made.close()


@pytest.fixture
def start(db: Database) -> Iterator[Start]:
    """Start couriers; they end with the test."""
    couriers: list[Courier] = []

    def begin(
        *connectors: Connector, poll: float = 0.05, listening: Callable[[], bool] = lambda: False
    ) -> Courier:
        known = {one.name: one for one in connectors}
        couriers.append(Courier(db, known, poll=poll, listening=listening))
        couriers[-1].start()
        return couriers[-1]

    yield begin
    for one in couriers:
        one.end()
        one.join(10)
        assert not one.is_alive()


def put(world: World, run_id: str = "run_1", seq: int = 1, **columns: Any) -> None:
    """A message that is due."""
    values = {"connector": "action", "event": "node.cancelled", "node_id": "n1", **columns}
    world.execute(
        "INSERT INTO outbox (id, organization_id, metronome_id, run_id, seq, node_id, connector,"
        " event, due_at) VALUES ('out_' || gen_random_uuid(), %s, %s, %s, %s, %s, %s, %s,"
        " clock_timestamp())",
        *(ORGANIZATION, METRONOME, run_id, seq),
        *(values["node_id"], values["connector"], values["event"]),
    )


def empty(world: World) -> bool:
    """Whether nothing is left to deliver."""
    return world.query("SELECT id FROM outbox") == []


def test_a_connector_is_told_signed(world: World, receiver: Receiver, start: Start) -> None:
    run_id = world.put("cancelled")
    world.put_step(run_id, 3, "cancelled", node_type="'action'")
    put(world, run_id, 3)
    (row,) = world.query("SELECT * FROM outbox")
    start(connector(receiver.url))
    wait_for(lambda: empty(world))
    (event,), (headers,) = receiver.events, receiver.headers
    assert event.pop("at") == row["created_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert event == {
        "type": "node.cancelled",
        "runId": run_id,
        "metronomeId": METRONOME,
        "organizationId": ORGANIZATION,
        "stepId": step_id(run_id, 3),
        "nodeId": "n1",
        "nodeKind": "action",
        "reason": "the run is cancelled",
    }
    assert headers["webhook-id"] == row["id"]


def test_the_reason_is_that_of_the_step_where_it_has_one(
    world: World, receiver: Receiver, start: Start
) -> None:
    run_id = world.put("failed", error="'node n1 failed'")
    world.put_step(run_id, 1, "failed", error="'timed out after 500 ms'")
    put(world, run_id, 1)
    put(world, "run_gone")
    start(connector(receiver.url))
    wait_for(lambda: empty(world))
    told = {event["runId"]: event["reason"] for event in receiver.events}
    assert told == {run_id: "timed out after 500 ms", "run_gone": None}


def test_what_the_receiver_refuses_comes_again_with_the_same_id(
    world: World, receiver: Receiver, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAIT_SECONDS", 0.05)
    answers = iter([(500, b""), (302, b""), (404, b"{}"), (200, b"ok")])
    receiver.answer = lambda event: next(answers)
    put(world)
    start(connector(receiver.url))
    wait_for(lambda: empty(world))
    assert len(receiver.events) == 4
    assert len({headers["webhook-id"] for headers in receiver.headers}) == 1
    assert len({event["at"] for event in receiver.events}) == 1


def test_between_two_attempts_it_waits_longer_each_time(world: World, start: Start) -> None:
    put(world)
    world.execute("UPDATE outbox SET attempts = 5")
    start(connector(f"http://127.0.0.1:{free_port()}"))
    (row,) = wait_for(
        lambda: world.query(
            "SELECT *, clock_timestamp() AS now FROM outbox WHERE error IS NOT NULL"
        )
    )
    assert row["error"] == "Connection refused"
    assert 10 < (row["due_at"] - row["now"]).total_seconds() <= 32


def test_it_gives_up_after_many_attempts_and_says_so(
    world: World, receiver: Receiver, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda event: (500, b"")
    put(world)
    world.execute("UPDATE outbox SET attempts = 19")
    with caplog.at_level(logging.WARNING):
        start(connector(receiver.url))
        wait_for(lambda: world.query("SELECT id FROM outbox WHERE due_at IS NULL"))
        wait_for(lambda: "connector given up" in caplog.messages)  # said once it is written
    assert world.query("SELECT error FROM outbox") == [{"error": "HTTP 500"}]


def test_a_connector_that_is_not_configured_here_is_named(world: World, start: Start) -> None:
    put(world, connector="ticket")
    start(connector("http://127.0.0.1:1"))
    wait_for(
        lambda: world.query("SELECT id FROM outbox WHERE error LIKE '%%no connector%%ticket%%'")
    )


def test_a_dead_connector_does_not_hold_up_the_others(
    world: World, receiver: Receiver, start: Start
) -> None:
    stuck, let_go = Receiver(), threading.Event()
    stuck.answer = lambda event: (200, b"") if let_go.wait(60) else (500, b"")
    try:
        for number in range(30):
            put(world, f"run_slow_{number}", connector="slow")
        for number in range(30):
            put(world, f"run_{number}")
        start(connector(stuck.url, "slow"), connector(receiver.url))
        wait_for(lambda: len(receiver.events) == 30)
        assert 1 <= len(stuck.events) <= 2 * module.THREADS_EACH
    finally:
        let_go.set()
        wait_for(lambda: empty(world))
        stuck.close()


def test_two_executors_tell_each_message_once(
    world: World, receiver: Receiver, start: Start
) -> None:
    for number in range(100):
        put(world, f"run_{number}")
    for _ in range(2):
        start(connector(receiver.url))
    wait_for(lambda: empty(world))
    assert len(receiver.events) == 100
    assert len({event["runId"] for event in receiver.events}) == 100


def test_a_message_that_was_claimed_by_an_executor_that_died_is_delivered_later(
    world: World, receiver: Receiver, start: Start
) -> None:
    put(world)
    world.execute("UPDATE outbox SET attempts = 1, due_at = clock_timestamp() + interval '1 s'")
    start(connector(receiver.url))
    wait_for(lambda: empty(world))
    assert len(receiver.events) == 1


def test_it_is_told_at_once_by_a_nudge_and_rests_otherwise(
    world: World, receiver: Receiver, start: Start
) -> None:
    calls: list[bool] = []

    def listening() -> bool:
        calls.append(True)
        return True

    courier = start(connector(receiver.url), poll=0.01, listening=listening)
    wait_for(lambda: calls)
    put(world)
    courier.nudge()
    wait_for(lambda: empty(world))
    rounds = len(calls)
    assert not threading.Event().wait(0.3)
    assert len(calls) <= rounds + 1  # no poll in all that time


def test_a_wrong_secret_shows_on_the_other_side(world: World, start: Start) -> None:
    receiver = Receiver(OTHER_SECRET)
    try:
        put(world)
        start(connector(receiver.url))
        wait_for(lambda: empty(world))
        assert receiver.events[0]["type"] == "forged"
    finally:
        receiver.close()


def test_the_end_cuts_a_delivery_off(world: World, receiver: Receiver, start: Start) -> None:
    let_go, begun = threading.Event(), threading.Event()

    def answer(event: dict[str, Any]) -> tuple[int, bytes]:
        begun.set()
        let_go.wait(60)
        return 200, b""

    receiver.answer = answer
    put(world)
    courier = start(connector(receiver.url))
    assert begun.wait(30)
    courier.end()
    courier.join(5)
    assert not courier.is_alive()
    let_go.set()
    assert not empty(world)  # whether it arrived is not known: it is delivered again


def test_it_outlives_the_loss_of_its_connection(
    world: World, receiver: Receiver, start: Start
) -> None:
    start(connector(receiver.url))
    for number in range(3):
        put(world, f"run_{number}")
        wait_for(lambda: empty(world), 20)
        world.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'metronome courier%%'"
        )
    assert len({event["runId"] for event in receiver.events}) == 3


def test_it_outlives_whatever_goes_wrong(
    world: World,
    receiver: Receiver,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults = iter([KeyError("x"), ValueError("y")])
    sent = signed.post

    def post(*args: Any, **options: Any) -> Any:
        for fault in faults:
            raise fault
        return sent(*args, **options)

    monkeypatch.setattr(signed, "post", post)
    monkeypatch.setattr(module, "MAX_WAIT_SECONDS", 0.05)
    put(world)
    start(connector(receiver.url))
    wait_for(lambda: empty(world))
    assert len(receiver.events) == 1


def test_a_system_without_a_thread_left_delays_a_message_only(
    world: World,
    receiver: Receiver,
    db: Database,
    monkeypatch: pytest.MonkeyPatch,
    no_thread: Callable[[], AbstractContextManager[None]],
) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.0)
    monkeypatch.setattr(module, "THREADS", 1)
    one = connector(receiver.url)
    courier = Courier(db, {one.name: one}, poll=0.05, listening=lambda: False)
    put(world)
    with no_thread(), pytest.raises(RuntimeError):
        courier._round()
    courier.start()
    wait_for(lambda: empty(world))
    courier.end()
    courier.join(10)
    assert not courier.is_alive()
