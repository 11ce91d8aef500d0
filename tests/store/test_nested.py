"""What a run needs to know of the runs below it, and of the workflows that it may start."""

from __future__ import annotations

import pytest

from app.domain.lifecycle import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PAUSED,
    QUEUED,
    RUN_STATUSES,
    RUNNING,
    TERMINAL,
    WAITING_APPROVAL,
)
from app.store import nested
from app.store.nested import End, Workflow
from tests.store.world import METRONOME, ORGANIZATION, World


def put_workflow(world: World, metronome_id: str, name: str, **columns: str) -> None:
    """A workflow; ``columns`` are SQL expressions."""
    values = {
        "id": f"'{metronome_id}'",
        "organization_id": f"'{ORGANIZATION}'",
        "user_id": "'user_a'",
        "name": f"'{name}'",
        "status": "'active'",
        "definition": "'{}'",
        **columns,
    }
    world.execute(
        f"INSERT INTO metronomes ({', '.join(values)}) VALUES ({', '.join(values.values())})"
    )


# -- the workflow


def test_a_workflow_is_found_by_its_id_or_its_name(world: World) -> None:
    put_workflow(world, "met_1", "one", published_version_id="'ver_1'")
    put_workflow(world, "met_2", "two")
    connection = world.raw()
    found = [Workflow("met_1", "active", "ver_1", None)]
    assert nested.find(connection, ORGANIZATION, "met_1", None) == found
    assert nested.find(connection, ORGANIZATION, None, "one") == found
    assert nested.find(connection, ORGANIZATION, None, "met_1") == []
    assert nested.find(connection, ORGANIZATION, "one", None) == []
    assert nested.find(connection, ORGANIZATION, None, None) == []


@pytest.mark.parametrize(
    ("published", "draft", "version"),
    [("'ver_p'", "'ver_d'", "ver_p"), ("NULL", "'ver_d'", "ver_d"), ("NULL", "NULL", None)],
)
def test_the_published_version_runs_or_else_that_of_the_draft(
    world: World, published: str, draft: str, version: str | None
) -> None:
    columns = {"published_version_id": published, "draft_version_id": draft}
    put_workflow(world, "met_1", "one", **columns)
    (found,) = nested.find(world.raw(), ORGANIZATION, "met_1", None)
    assert found.version_id == version


def test_an_archived_workflow_is_found_by_its_id_only(world: World) -> None:
    """So that it can be said why it doesn't run; its name may have been given to another one."""
    put_workflow(world, "met_1", "one", status="'archived'")
    connection = world.raw()
    assert nested.find(connection, ORGANIZATION, None, "one") == []
    (found,) = nested.find(connection, ORGANIZATION, "met_1", None)
    assert found.status == "archived"
    put_workflow(world, "met_2", "one")
    assert [one.id for one in nested.find(connection, ORGANIZATION, None, "one")] == ["met_2"]


def test_of_several_workflows_of_one_name_two_are_told(world: World) -> None:
    for number in range(4):
        put_workflow(world, f"met_{number}", "one")
    assert len(nested.find(world.raw(), ORGANIZATION, None, "one")) == 2


def test_workflows_of_others_are_not_found(world: World) -> None:
    put_workflow(world, "met_b", "one", organization_id="'org_b'")
    assert nested.find(world.raw(), ORGANIZATION, "met_b", None) == []
    assert nested.find(world.raw(), ORGANIZATION, None, "one") == []


# -- the runs


def test_the_line_of_a_run_is_it_and_all_above_it(world: World) -> None:
    root = world.put(RUNNING, metronome_id="'met_r'")
    above = world.put(RUNNING, parent=root, metronome_id="'met_p'")
    run_id = world.put(RUNNING, parent=above, metronome_id="'met_c'")
    world.put(RUNNING, parent=run_id, metronome_id="'met_below'")
    world.put(RUNNING, parent=root, metronome_id="'met_beside'")
    assert nested.line(world.raw(), run_id) == ["met_c", "met_p", "met_r"]
    assert nested.line(world.raw(), root) == ["met_r"]
    assert nested.line(world.raw(), "run_unknown") == []


def test_ends_tells_of_those_that_have_ended_or_are_gone(world: World) -> None:
    root = world.put(RUNNING)
    children = {
        status: world.put(
            status,
            parent=root,
            parent_seq=str(seq),
            output="'{\"n\": 1}'" if status == COMPLETED else "NULL",
            error="'why'" if status == FAILED else "NULL",
        )
        for seq, status in enumerate(RUN_STATUSES, 1)
    }
    asked = [(seq, children[status]) for seq, status in enumerate(RUN_STATUSES, 1)]
    asked.append((99, "run_gone"))

    found = nested.ends(world.raw(), asked)

    place = {status: seq for seq, status in enumerate(RUN_STATUSES, 1)}
    assert sorted(found, key=lambda end: end.seq) == [
        End(place[COMPLETED], COMPLETED, '{"n": 1}', None),
        End(place[FAILED], FAILED, None, "why"),
        End(place[CANCELLED], CANCELLED, None, None),
        End(99, "deleted", None, None),
    ]
    assert nested.ends(world.raw(), []) == []


def test_ends_finds_its_runs_by_their_keys(world: World) -> None:
    root = world.put(RUNNING)
    world.execute(
        "INSERT INTO runs (id, organization_id, metronome_id, user_id, version_id, trigger_type,"
        " input, status, due_at, parent_run_id, parent_seq, root_run_id, depth)"
        " SELECT %s || n, 'org_a', 'met_b', 'user_a', 'ver_a', 'metronome', '{}', 'queued',"
        " clock_timestamp(), %s, n, %s, 1 FROM generate_series(1, 5000) n",
        *(root, root, root),
    )
    world.execute("ANALYZE runs")
    with world.raw().cursor() as cursor:
        cursor.execute("RESET ALL")  # the readers' sessions are not tuned
        asked = {"seqs": [1, 2], "ids": [f"{root}1", f"{root}2"]}
        cursor.execute(f"EXPLAIN {nested._ENDS}", asked)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Index Scan using runs_pkey" in plan
    assert "Seq Scan" not in plan


def test_still_open_are_the_runs_of_those_steps_that_have_not_ended(world: World) -> None:
    root = world.put(RUNNING)
    runs = {
        status: world.put(status, parent=root, parent_seq="2", metronome_id="'met_c'")
        for status in RUN_STATUSES
    }
    other = world.put(RUNNING, parent=root, parent_seq="3")
    world.put(RUNNING, parent=runs[RUNNING], parent_seq="2")

    found = nested.still_open(world.raw(), root, [1, 2])

    open_ones = (QUEUED, RUNNING, WAITING_APPROVAL, PAUSED)
    assert sorted(found) == sorted(("met_c", runs[status]) for status in open_ones)
    assert not set(open_ones) & set(TERMINAL)
    assert nested.still_open(world.raw(), root, [3]) == [(METRONOME, other)]
    assert {run for _, run in nested.still_open(world.raw(), root, None)} == {
        other,
        *(runs[status] for status in open_ones),
    }
    assert nested.still_open(world.raw(), root, []) == []
