"""Boundaries in lists: each run for itself, in one statement with one plan."""

from __future__ import annotations

import random
import re
from typing import Any

import psycopg2
import pytest

from app.db import Database, RawConnection
from app.domain.lifecycle import (
    CANCEL,
    CANCELLED,
    COMPLETED,
    FAILED,
    PAUSE,
    PAUSED,
    RUNNING,
    SKIPPED,
)
from app.store import boundary
from app.store.boundary import Boundary, Move, StepEnd, StepStart
from app.store.boundary_statement import LEAN, PLAIN, SINGLE, WIDE, Form
from app.store.leases import Claimed
from app.store.migrations import upgrade
from tests.processes import PATIENCE
from tests.store.world import METRONOME, World, bound, make_move, step


def test_a_refused_value_leaves_nothing_of_its_batch(world: World) -> None:
    good, bad = world.in_flight(), world.in_flight()
    before = world.everything()
    for end in (StepEnd(1, COMPLETED, output='{"n": "\\u0000"'), StepEnd(1, "no status")):
        with pytest.raises(psycopg2.Error):
            boundary.write(
                world.raw(),
                [step(good, end=1, start=2), Boundary(bad.id, METRONOME, bad.token, ends=[end])],
            )
    with pytest.raises(ValueError, match="NUL"):
        world.write(Boundary(bad.id, METRONOME, bad.token, ends=[StepEnd(1, FAILED, error="\0")]))
    assert world.everything() == before


def test_a_run_that_is_gone_is_answered_with_the_databases_time(world: World) -> None:
    held, gone = world.in_flight(), world.in_flight()
    world.execute("DELETE FROM runs WHERE id = %s", gone.id)

    first, second = boundary.write(
        world.raw(), [step(held, end=1, start=2), step(gone, end=1, start=2)]
    )

    assert (first.answer, second.answer, second.status) == ("go", "lease_lost", None)
    assert second.now.tzinfo is not None
    assert second.now >= held.now


def test_two_holders_of_one_run_in_one_batch_keep_to_their_own(world: World) -> None:
    """A process may take over its own run: the old thread and the new one then write together."""
    old = world.in_flight()
    world.write(step(old, sleep=1))
    world.write(step(old, start=2))
    world.expire(old.id)
    new = world.claim("executor-1")
    assert (new.id, new.lost) == (old.id, True)
    zombie = Boundary(
        old.id,
        METRONOME,
        old.token,
        ends=[StepEnd(1, COMPLETED), StepEnd(2, COMPLETED)],
        starts=[StepStart(9, "late", "function", 1)],
        move=make_move(old, "complete"),
    )

    answers = boundary.write(world.raw(), [zombie, step(new, start=3), zombie])

    assert [one.answer for one in answers] == ["lease_lost", "go", "lease_lost"]
    steps = {row["seq"]: row["status"] for row in world.steps(old.id)}
    assert steps == {1: RUNNING, 2: COMPLETED, 3: RUNNING}
    assert world.run(old.id)["lease_token"] == new.token


def test_a_boundary_is_known_to_be_written_or_not(world: World) -> None:
    held = world.in_flight()
    connection = world.raw()
    one = step(held, end=1, start=2)
    assert boundary.recorded(connection, one) is None
    verdict = world.write(one)
    found = boundary.recorded(connection, one)
    assert found is not None
    assert (found.answer, found.started_at) == ("go", verdict.started_at)
    world.done(CANCEL, held.id)
    refused = step(held, end=2, start=3)
    assert world.write(refused).answer == "stopped"
    assert boundary.recorded(connection, refused) is None


def test_pause_and_cancel_of_many_runs_under_way_never_lets_one_start_late(world: World) -> None:
    """Random interleavings: what started is before the stop, and what the stop was told of."""
    held = [world.in_flight() for _ in range(12)]
    order = random.Random(1)
    stops = {one.id: order.choice([CANCEL, PAUSE]) for one in held}
    connections = [world.raw() for _ in range(3)]

    def walk(connection: RawConnection, mine: list[Claimed]) -> None:
        open_runs = {one.id: one for one in mine}
        seq = 1
        while open_runs and seq < 400:
            batch = [step(one, end=seq, start=seq + 1) for one in open_runs.values()]
            for one, verdict in zip(batch, boundary.write(connection, batch), strict=True):
                if verdict.answer != "go":
                    del open_runs[one.run_id]
            seq += 1

    walking = [
        world.begin(walk, connection, held[index::3])
        for index, connection in enumerate(connections)
    ]
    results = {run_id: world.done(action, run_id) for run_id, action in stops.items()}
    for one in walking:
        one.result(PATIENCE)
    for run_id, result in results.items():
        stopped_at = result.run.updated_at
        starts = [row["started_at"] for row in world.steps(run_id)]
        assert max(starts) < stopped_at
        assert len(result.in_flight) == 1
        assert world.run(run_id)["status"] == (CANCELLED if stops[run_id] is CANCEL else PAUSED)
        assert result.in_flight == (world.steps(run_id)[-1]["node_id"],)


@pytest.mark.parametrize(
    ("form", "scans"),
    [(SINGLE, 3), (LEAN, 3), (PLAIN, 4), (WIDE, 6)],
    ids=["single", "lean", "plain", "wide"],
)
@pytest.mark.parametrize("rows", [None, 0, 5000], ids=["unknown", "empty", "full"])
def test_a_boundary_finds_its_rows_by_their_keys(
    fresh_database_url: str, rows: int | None, form: Form, scans: int
) -> None:
    """Whatever the planner believed when it made the one plan: tables grow, and plans are kept."""
    upgrade(fresh_database_url)
    world = World(Database(fresh_database_url))
    held = world.held()
    if rows is not None:
        world.execute(
            "INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status, attempt,"
            " completed_at) SELECT 'run_' || mod(n, 3), n, 'm', 'n', 'end', 'completed', 1, now()"
            " FROM generate_series(1, %s) AS n",
            rows,
        )
        world.execute("ANALYZE runs; ANALYZE steps")
    connection = world.raw()
    lean = form in (SINGLE, LEAN)
    arguments = boundary.arguments(
        [step(held, end=1, start=3) if lean else step(held, end=1, sleep=2, start=3)], form
    )
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {form.execute}", arguments)
        plan = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE name = %s",
            (form.name,),
        )
        assert cursor.fetchall() == [(1, 0)]
    world.close()
    world.db.close()
    found = re.findall(r"Scan (?:using \w+ )?on (?:runs|steps|outbox|audit_events|versions)", plan)
    run_id, seq = r"\(run_id = ANY \(ARRAY\[\S+\]\)\)", r"\(seq = \S+\)"
    by_key = re.findall(rf"Index Cond: \({run_id} AND {seq}\)", plan)
    by_key += re.findall(r"Index Cond: \(id = ANY \(ARRAY\[\S+\]\)\)", plan)
    assert len(by_key) == len(found) == scans, plan


ALONE = {
    "a start": {"starts": [StepStart(1, "n1", "note", 1, input='{"a": 1}', unsafe=True)]},
    "an end": {"ends": [StepEnd(1, COMPLETED, output='{"n": 1}', metadata='{"branch": "x"}')]},
    "a failure": {"ends": [StepEnd(1, FAILED, error="it's broken\\")], "move": Move("fail")},
    "a step that rode": {
        "starts": [StepStart(1, "n1", "note", 2, status=COMPLETED, output="{}")],
    },
    "an end of the run": {"move": Move("complete", output='{"a": "%s $1"}')},
    "nothing": {},
}


@pytest.mark.parametrize("fields", ALONE.values(), ids=ALONE)
def test_a_boundary_that_goes_alone_does_what_it_does_in_a_list(
    world: World, fields: dict[str, Any]
) -> None:
    """But for the times, and what belongs to the run."""
    own = {"run_id", "id", "lease_token", "created_at", "updated_at", "completed_at", "started_at"}
    own |= {"queued_at", "due_at", "locked_at", "deadline_at"}
    found = []
    for forms in (boundary.form_of, lambda boundaries: LEAN):
        held = world.in_flight() if "ends" in fields else world.held()
        one = bound(held, **fields)
        assert boundary.form_of([one]) is SINGLE
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(boundary, "form_of", forms)
            assert world.write(one).answer == "go"
        rows = [world.run(held.id), *world.steps(held.id)]
        found.append([{k: (v is None) if k in own else v for k, v in row.items()} for row in rows])
    assert found[0] == found[1]


def test_more_than_one_step_goes_as_a_list(world: World) -> None:
    held = world.in_flight()
    steps = [StepStart(seq, f"n{seq}", "note", 1, status=SKIPPED) for seq in (2, 3)]
    one = bound(held, starts=steps)
    assert boundary.form_of([one]) is LEAN
    assert world.write(one).answer == "go"
    assert [row["seq"] for row in world.steps(held.id)] == [1, 2, 3]
