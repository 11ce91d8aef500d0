"""The ends of steps that connectors have to be told of, and the two forms of the boundary."""

from __future__ import annotations

import json

import pytest

from app.db import RawConnection
from app.domain.lifecycle import (
    CANCEL,
    CANCELLED,
    COMPLETED,
    FAILED,
    PAUSED,
    RUN_STATUSES,
    RUNNING,
    WAITING_APPROVAL,
)
from app.ids import new_id
from app.store import boundary
from app.store.boundary import Boundary, Move, Spawn, StepEnd, StepPark, StepStart
from app.store.outbox import OUTBOX_CHANNEL
from tests.store.world import METRONOME, Ear, World, as_held, bound, step


def told(world: World) -> list[tuple[str, int, str]]:
    """Run, step and event of what connectors have to be told."""
    rows = world.query("SELECT * FROM outbox ORDER BY run_id, seq")
    return [(row["run_id"], row["seq"], row["event"]) for row in rows]


@pytest.mark.parametrize("connector", ["'imagine'", "NULL"], ids=["connector", "none"])
@pytest.mark.parametrize("tell", [True, False])
@pytest.mark.parametrize("parked", [True, False], ids=["parked", "in flight"])
def test_a_connector_is_told_of_an_end_where_there_is_one_and_it_has_to_know(
    world: World, connector: str, tell: bool, parked: bool
) -> None:
    held = world.held()
    token = "NULL" if parked else f"'{held.token}'"
    world.put_step(held.id, 1, RUNNING, connector=connector, lease_token=token)
    heard = Ear(world, OUTBOX_CHANNEL)

    end = StepEnd(1, FAILED, error="timed out", tell=tell)
    assert world.write(bound(held, ends=[end])).answer == "go"

    if not (tell and connector != "NULL"):
        assert (told(world), heard.all()) == ([], [])
        return
    (row,) = world.query("SELECT * FROM outbox")
    expected = {
        "organization_id": "org_a",
        "metronome_id": METRONOME,
        "run_id": held.id,
        "seq": 1,
        "node_id": "n1",
        "connector": "imagine",
        "event": "node.cancelled",
        "attempts": 0,
        "error": None,
    }
    assert expected.items() <= row.items()
    assert row["id"].startswith("out_")
    assert row["due_at"] >= world.steps(held.id)[0]["completed_at"]
    assert heard.all() == [""]


@pytest.mark.parametrize("status", RUN_STATUSES)
def test_it_is_told_whatever_has_become_of_the_run(world: World, status: str) -> None:
    run_id = world.put(status, held=True)
    held = as_held(world.run(run_id))
    world.put_step(run_id, 1, RUNNING, connector="'imagine'", lease_token=f"'{held.token}'")
    world.write(bound(held, ends=[StepEnd(1, CANCELLED, tell=True)]))
    assert told(world) == [(run_id, 1, "node.cancelled")]


def test_a_step_that_has_ended_before_is_told_of_no_more(world: World) -> None:
    held = world.held()
    world.put_step(held.id, 1, RUNNING, connector="'imagine'")
    world.done(CANCEL, held.id)  # which has told it already
    before = world.everything()
    world.write(bound(held, ends=[StepEnd(1, CANCELLED, tell=True)]))
    assert world.everything() == before
    assert len(before["outbox"]) == 1


def test_of_a_batch_each_step_is_told_of_for_itself(world: World) -> None:
    held = [world.held() for _ in range(3)]
    for one in held:
        world.put_step(one.id, 1, RUNNING, connector="'imagine'")
        world.put_step(one.id, 2, RUNNING, connector="'imagine'")
    zombie = Boundary(
        held[2].id, METRONOME, "another's token", ends=[StepEnd(1, FAILED, tell=True)]
    )
    batch = [
        bound(held[0], ends=[StepEnd(1, FAILED, tell=True), StepEnd(2, COMPLETED)]),
        bound(held[1], ends=[StepEnd(2, FAILED, tell=True)]),
        zombie,
    ]
    boundary.write(world.raw(), batch)
    assert [(run, seq) for run, seq, _ in told(world)] == [(held[0].id, 1), (held[1].id, 2)]


@pytest.mark.parametrize("status", RUN_STATUSES)
def test_a_park_tells_of_a_pause_that_came_while_the_work_was_handed_over(
    world: World, status: str
) -> None:
    """The pause itself passed over the step, since somebody was in flight in it."""
    run_id = world.put(status, held=True)
    held = as_held(world.run(run_id))
    for seq, connector in ((1, "'imagine'"), (2, "NULL")):
        token = f"'{held.token}'"
        world.put_step(run_id, seq, RUNNING, connector=connector, lease_token=token)

    world.write(bound(held, parks=[StepPark(seq, None, tell=True) for seq in (1, 2)]))

    assert told(world) == ([(run_id, 1, "node.paused")] if status == PAUSED else [])


# -- what came too late to be heard


@pytest.mark.parametrize("status", [COMPLETED, FAILED, CANCELLED])
@pytest.mark.parametrize(
    ("kind", "open_as", "name"),
    [("action", RUNNING, "lateCallback"), ("approval", WAITING_APPROVAL, "lateDecision")],
)
def test_what_has_come_for_a_step_that_ends_without_hearing_it_is_kept(
    world: World, kind: str, open_as: str, name: str, status: str
) -> None:
    held = world.held()
    result = {"status": "completed", "output": {"n": 1}}
    columns = {"node_type": f"'{kind}'", "result": f"'{json.dumps(result)}'"}
    for seq in (1, 2):
        world.put_step(held.id, seq, open_as, metadata="""'{"label": "x"}'""", **columns)
    world.put_step(held.id, 3, open_as, **columns)

    ends = [
        StepEnd(1, status, metadata='{"more": 1}'),
        StepEnd(2, status, metadata='{"more": 2}', heard=True),
        StepEnd(3, status),
    ]
    assert world.write(bound(held, ends=ends)).answer == "go"

    unheard, heard, bare = (row["metadata"] for row in world.steps(held.id))
    assert json.loads(unheard).pop(name).items() >= result.items()
    assert {**json.loads(unheard), name: None} == {"label": "x", "more": 1, name: None}
    assert json.loads(heard) == {"label": "x", "more": 2}
    assert json.loads(bare).keys() == {name}


@pytest.mark.parametrize("heard", [True, False])
def test_where_nothing_has_come_nothing_is_kept(world: World, heard: bool) -> None:
    held = world.held()
    world.put_step(held.id, 1, RUNNING)
    world.write(bound(held, ends=[StepEnd(1, COMPLETED, heard=heard)]))
    assert world.steps(held.id)[0]["metadata"] is None


# -- the forms


def test_only_what_concerns_more_than_its_own_run_takes_the_wide_form(world: World) -> None:
    held = world.held()
    spawn = Spawn(1, new_id("run", after=held.id), METRONOME, "ver_a", "{}")
    assert not step(held, end=1, sleep=2, start=3, move="complete").is_wide()
    assert bound(held, spawns=[spawn]).is_wide()
    assert bound(held, ends=[StepEnd(1, FAILED, tell=True)]).is_wide()
    assert bound(held, parks=[StepPark(1, None, tell=True)]).is_wide()
    assert Boundary(held.id, METRONOME, held.token, touches=["run_1"]).is_wide()


def _forget(connection: RawConnection) -> None:
    """What a pooler does that gives each transaction another server."""
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")


@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "not prepared"])
def test_both_forms_do_the_same_with_and_without_a_prepared_statement(
    world: World, prepared: bool
) -> None:
    """Every kind of argument is sent once, so that none can land in another's place."""
    parent = world.put(RUNNING, due_at="'infinity'")
    held, child = world.in_flight(), world.in_flight(parent=parent)
    world.put_step(held.id, 8, RUNNING, connector="'c'")
    world.put_step(held.id, 9, RUNNING)
    connection = world.raw()
    start = StepStart(
        seq=10,
        node_id="node",
        node_type="kind",
        attempt=3,
        input='{"i": 1}',
        metadata='{"m": 1}',
        parent_seq=9,
        iteration=4,
        unsafe=True,
        connector="connector",
        callback_sha256="abc",
    )
    spawn = Spawn(1, new_id("run", after=held.id), "met_c", "ver_c", '{"s": 1}')
    wake_at = held.now.replace(year=2999)
    if not prepared:
        _forget(connection)

    plain = bound(
        held,
        ends=[StepEnd(9, FAILED, '{"o": 1}', "100 % 'sure' $1", '{"e": 1}')],
        parks=[StepPark(8, wake_at, '{"p": 1}', RUNNING, '{"w": 1}')],
        starts=[start],
    )
    (verdict,) = boundary.write(connection, [plain])
    wide = [
        bound(
            held,
            ends=[StepEnd(8, CANCELLED, tell=True)],
            parks=[StepPark(1, None)],
            spawns=[spawn],
            move=Move("sleep", wake_at=wake_at),
        ),
        bound(child, move=Move("complete", output='{"r": 1}')),
    ]
    answers = [one.answer for one in boundary.write(connection, wide)]

    assert (verdict.answer, *answers) == ("go", "go", "go")
    rows = {row["seq"]: row for row in world.steps(held.id)}
    began = rows[10]
    assert {name: began[name] for name in ("node_id", "node_type", "attempt", "unsafe")} == {
        "node_id": "node",
        "node_type": "kind",
        "attempt": 3,
        "unsafe": True,
    }
    assert (began["input"], began["metadata"]) == ('{"i": 1}', '{"m": 1}')
    assert (began["parent_seq"], began["iteration"]) == (9, 4)
    assert (began["connector"], began["callback_sha256"]) == ("connector", "abc")
    assert (began["lease_token"], began["started_at"]) == (held.token, verdict.started_at)
    ended = rows[9]
    assert (ended["output"], ended["error"]) == ('{"o": 1}', "100 % 'sure' $1")
    assert (ended["metadata"], rows[8]["output"]) == ('{"e": 1}', '{"p": 1}')
    assert (rows[8]["status"], rows[8]["metadata"]) == (CANCELLED, '{"w": 1}')
    assert rows[1]["lease_token"] is None
    assert told(world) == [(held.id, 8, "node.cancelled")]
    assert world.run(spawn.run_id)["input"] == '{"s": 1}'
    assert world.run(held.id)["due_at"] == wake_at
    assert world.run(child.id)["output"] == '{"r": 1}'
    assert world.run(parent)["signalled"]


def test_a_step_that_is_passed_over_needs_no_time_and_no_lease(world: World) -> None:
    held = world.held()
    world.execute("UPDATE runs SET deadline_at = clock_timestamp() - interval '1 second'")
    skip = StepStart(1, "n1", "end", 1, status="skipped")
    assert world.write(bound(held, starts=[skip])).answer == "timed_out"
    (row,) = world.steps(held.id)
    assert (row["status"], row["started_at"], row["lease_token"]) == ("skipped", None, None)
    assert row["completed_at"] is not None
