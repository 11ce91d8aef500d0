"""What the interpreter reads of a run's trace: everything that matters, and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.domain.lifecycle import CANCELLED, COMPLETED, FAILED, RUNNING, SKIPPED, WAITING_APPROVAL
from app.store import steps
from tests.store.world import METRONOME, World

LOOP = {"node_type": "'loop'", "input": "'{\"items\": [1]}'"}


def seqs(world: World, run_id: str, *, base: int = 0, loops: bool = True) -> list[int]:
    """Which steps are read."""
    found, last = steps.trail(world.raw(), run_id, base=base, loops=loops)
    (row,) = world.query("SELECT max(seq) AS last FROM steps WHERE run_id = %s", run_id)
    assert last == (row["last"] or 0)
    return [one.seq for one in found]


def body(
    world: World,
    run_id: str,
    seq: int,
    loop: int,
    iteration: int,
    status: str = COMPLETED,
    **columns: str,
) -> None:
    """A step in an iteration of a loop, whose step is ``loop``."""
    world.put_step(
        run_id, seq, status, **{"parent_seq": str(loop), "iteration": str(iteration), **columns}
    )


def turns(world: World, run_id: str, loop: int, count: int, *, first: int = 0) -> None:
    """Iterations of a loop, of two nodes each, behind what is there."""
    world.execute(
        "INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status, attempt, output,"
        " parent_seq, iteration, started_at, completed_at)"
        " SELECT %s, (SELECT max(seq) FROM steps WHERE run_id = %s) + n, %s, 'b' || n %% 2, 'x',"
        " 'completed', 1, json_build_object('n', n), %s, %s + (n - 1) / 2,"
        " clock_timestamp(), clock_timestamp() FROM generate_series(1, 2 * %s) n",
        *(run_id, run_id, METRONOME, loop, first, count),
    )


# -- without loops


def test_a_step_is_read_with_all_that_it_takes_to_go_on(world: World) -> None:
    run_id = world.put(RUNNING)
    world.put_step(
        run_id,
        1,
        WAITING_APPROVAL,
        attempt="3",
        output="'{\"a\": 1}'",
        metadata="'{\"b\": 2}'",
        error="'why'",
        result="'{\"c\": 3}'",
        input="'{\"d\": 4}'",
        wake_at="'2999-01-01Z'",
        unsafe="true",
    )
    world.put_step(run_id, 2, RUNNING, lease_token="'token'")
    world.put_step(world.put(RUNNING), 1, RUNNING)
    (row, _) = world.steps(run_id)

    (first, second), last = steps.trail(world.raw(), run_id, base=0, loops=False)

    assert last == 2
    assert (first.seq, first.node_id, first.attempt) == (1, "n1", 3)
    assert first.status == WAITING_APPROVAL
    assert (first.output, first.metadata) == ('{"a": 1}', '{"b": 2}')
    assert (first.error, first.result, first.unsafe) == ("why", '{"c": 3}', True)
    assert (first.started_at, first.wake_at) == (row["started_at"], row["wake_at"])
    assert (first.lease_token, second.lease_token) == (None, "token")
    assert first.input is None  # nobody needs it: the node is rendered anew
    assert (first.parent_seq, first.iteration) == (None, None)


@pytest.mark.parametrize("loops", [True, False])
def test_what_came_before_a_retry_from_the_start_is_not_read(world: World, loops: bool) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, CANCELLED, **LOOP)
    body(world, run_id, 2, 1, 0)
    for seq in (3, 4):
        world.put_step(run_id, seq, COMPLETED)
    assert seqs(world, run_id, base=2, loops=loops) == [3, 4]
    assert seqs(world, run_id, base=4, loops=loops) == []  # but what is next comes behind it all


@pytest.mark.parametrize("loops", [True, False])
def test_a_run_without_steps_begins_at_the_first(world: World, loops: bool) -> None:
    assert steps.trail(world.raw(), world.put(RUNNING), base=0, loops=loops) == ([], 0)


# -- with loops


def test_of_a_loop_that_goes_on_the_last_two_iterations_are_read(world: World) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, COMPLETED)
    world.put_step(run_id, 2, RUNNING, **LOOP)
    turns(world, run_id, 2, 5)  # seqs 3 to 12
    body(world, run_id, 13, 2, 5, RUNNING, lease_token="'token'")
    body(world, run_id, 14, 2, 5, SKIPPED)
    world.put_step(run_id, 15, COMPLETED)  # another branch
    assert seqs(world, run_id) == [1, 2, 11, 12, 13, 14, 15]

    found, _ = steps.trail(world.raw(), run_id, base=0, loops=True)
    told = {one.seq: (one.parent_seq, one.iteration, one.input) for one in found}
    assert told[2] == (None, None, '{"items": [1]}')
    assert told[12] == (2, 4, None)
    assert told[13] == (2, 5, None)


@pytest.mark.parametrize("iterations", [1, 2])
def test_a_loop_that_has_just_begun_is_read_whole(world: World, iterations: int) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, RUNNING, **LOOP)
    assert seqs(world, run_id) == [1]
    turns(world, run_id, 1, iterations)
    assert seqs(world, run_id) == list(range(1, 2 + 2 * iterations))


def test_of_a_loop_that_is_over_only_its_own_step_is_read(world: World) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, COMPLETED, **LOOP)
    turns(world, run_id, 1, 3)
    world.put_step(run_id, 8, COMPLETED)
    assert seqs(world, run_id) == [1, 8]
    found, _ = steps.trail(world.raw(), run_id, base=0, loops=True)
    assert found[0].input is None


@pytest.mark.parametrize("status", [FAILED, CANCELLED])
def test_a_loop_that_was_closed_before_its_end_is_read_like_one_that_goes_on(
    world: World, status: str
) -> None:
    """A retry goes on in the iteration where it stood; it is another step of the same node."""
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, status, **LOOP)
    turns(world, run_id, 1, 4)  # seqs 2 to 9
    assert seqs(world, run_id) == [1, 6, 7, 8, 9]
    world.put_step(run_id, 10, RUNNING, **LOOP)
    turns(world, run_id, 10, 3, first=4)  # seqs 11 to 16
    assert seqs(world, run_id) == [1, 6, 7, 8, 9, 10, 13, 14, 15, 16]
    found, _ = steps.trail(world.raw(), run_id, base=0, loops=True)
    assert found[0].input is not None


def test_of_loops_in_loops_the_last_two_iterations_of_each_that_goes_on_are_read(
    world: World,
) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, RUNNING, **LOOP)
    wanted = [1]
    seq = 2
    for outer in range(4):
        ended = outer < 3
        body(world, run_id, seq, 1, outer, COMPLETED if ended else RUNNING, **LOOP)
        inner = seq
        for turn in range(3):
            body(world, run_id, inner + 1 + turn, inner, turn)
            if not ended and turn >= 1:
                wanted.append(inner + 1 + turn)
        seq += 4
        if outer >= 2:
            wanted.append(inner)
    assert seqs(world, run_id) == sorted(wanted)


def test_an_inner_loop_that_was_closed_is_read_with_its_iteration(world: World) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, FAILED, **LOOP)
    body(world, run_id, 2, 1, 7, FAILED, **LOOP)
    body(world, run_id, 3, 2, 0)
    body(world, run_id, 4, 2, 1, FAILED)
    assert seqs(world, run_id) == [1, 2, 3, 4]


def test_two_loops_side_by_side_are_read_each_for_itself(world: World) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, RUNNING, **LOOP)
    world.put_step(run_id, 2, RUNNING, **LOOP)
    for turn in range(4):
        body(world, run_id, 3 + 2 * turn, 1, turn)
        body(world, run_id, 4 + 2 * turn, 2, turn)
    assert seqs(world, run_id) == [1, 2, 7, 8, 9, 10]


def _scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if plan.get("Relation Name") == "steps":
        yield plan
    for child in plan.get("Plans", []):
        yield from _scans(child)


def _read(world: World, sql: str, values: dict[str, Any]) -> int:
    """How many steps a query looked at, by an index in every case."""
    with world.raw().cursor() as cursor:
        cursor.execute("RESET ALL")  # the readers' sessions are not tuned
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", values)
        ((plan,),) = cursor.fetchall()
    scans = list(_scans(json.loads(plan)[0]["Plan"]))
    assert scans
    assert not [one for one in scans if one["Node Type"] == "Seq Scan"], plan
    assert not [one for one in scans if one.get("Rows Removed by Filter")], plan
    return sum(round(one["Actual Rows"] * one["Actual Loops"]) for one in scans)


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "statistics unknown"])
def test_what_is_read_of_a_loop_does_not_grow_with_its_iterations(
    world: World, analyzed: bool
) -> None:
    world.execute(
        "INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status, attempt,"
        " completed_at) SELECT 'run_' || n / 10, mod(n, 10), 'm', 'n', 'x', 'completed', 1, now()"
        " FROM generate_series(1, 5000) AS n"
    )
    read = []
    for count in (10, 10_000):
        run_id = world.put(RUNNING)
        world.put_step(run_id, 1, RUNNING, **LOOP)
        turns(world, run_id, 1, count)
        if analyzed:
            world.execute("ANALYZE steps")
        last = 2 * count + 1
        assert seqs(world, run_id) == [1, *range(last - 3, last + 1)]
        read.append(_read(world, steps._LAST_ITERATIONS, {"run_id": run_id, "loops": [1]}))
    assert read[0] == read[1] < 10


# -- the outputs of the iterations


def test_the_outputs_of_the_iterations_come_in_order_and_of_the_named_nodes(world: World) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, FAILED, **LOOP)
    body(world, run_id, 2, 1, 0, node_id="'a'", output="'{\"n\": 0}'")
    body(world, run_id, 3, 1, 0, node_id="'b'", output="'{\"no\": 0}'")
    body(world, run_id, 4, 1, 1, FAILED, node_id="'a'", output="'{\"no\": 1}'")
    world.put_step(run_id, 5, RUNNING, **LOOP)  # goes on where that one was closed
    body(world, run_id, 6, 5, 1, node_id="'a'", output="'{\"n\": 1}'")
    body(world, run_id, 7, 5, 2, node_id="'c'", output="'{\"n\": 2}'")
    body(world, run_id, 8, 6, 0, node_id="'a'", output="'{\"no\": 2}'")  # of a loop inside

    found = steps.iteration_outputs(world.raw(), run_id, [1, 5], ["a", "c"], max_bytes=1000)

    assert found == [(0, "a", '{"n": 0}'), (1, "a", '{"n": 1}'), (2, "c", '{"n": 2}')]
    assert steps.iteration_outputs(world.raw(), run_id, [1], [], max_bytes=1000) == []


@pytest.mark.parametrize(("room", "count"), [(0, 1), (8, 2), (15, 2), (16, 3), (24, 3), (25, 4)])
def test_no_more_of_the_outputs_is_read_than_there_is_room_and_the_one_too_much(
    world: World, room: int, count: int
) -> None:
    """In bytes of UTF-8: ``{"":"ä"}`` has 9."""
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, RUNNING, **LOOP)
    for turn, text in enumerate(('{"n":12}', '{"n":""}', '{"":"ä"}', "{}")):
        body(world, run_id, 2 + turn, 1, turn, node_id="'a'", output=f"'{text}'")
    found = steps.iteration_outputs(world.raw(), run_id, [1], ["a"], max_bytes=room)
    assert [turn for turn, _, _ in found] == list(range(count))


def test_the_outputs_of_ten_thousand_iterations_fit_into_their_room(world: World) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, RUNNING, **LOOP)
    turns(world, run_id, 1, 10_000)
    found = steps.iteration_outputs(world.raw(), run_id, [1], ["b0"], max_bytes=5_000)
    assert [turn for turn, _, _ in found] == list(range(len(found)))
    *kept, _ = found
    assert sum(len(text) for _, _, text in kept) <= 5_000 < sum(len(text) for *_, text in found)


# -- what came from outside


def test_the_result_of_a_step_is_read_once_it_is_there(world: World) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, RUNNING)
    assert steps.news(world.raw(), run_id, 1) == (None, None)
    assert steps.news(world.raw(), run_id, 9) is None
    world.execute("UPDATE steps SET result = '{\"n\": 1}'")
    assert steps.news(world.raw(), run_id, 1) == ('{"n": 1}', None)
