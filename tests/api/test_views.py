"""What an answer tells of the moment: what is in flight, what waits, what is below."""

from __future__ import annotations

from typing import Any

import pytest

from app.db import Database
from tests.api import states
from tests.api.conftest import Caller, data, refused

SOON = "clock_timestamp() + interval '1 hour'"


def live(api: Caller, path: str) -> tuple[list[Any], list[Any], int]:
    """Nodes in flight, what the others wait for, and how many runs there are below."""
    run = data(api.get(path))
    waiting = [(one["nodeId"], one["type"]) for one in run["waitingFor"]]
    return [one["nodeId"] for one in run["inFlight"]], waiting, run["childCount"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("queued", ([], [], 0)),
        ("running", (["n2"], [], 0)),
        ("sleeping", ([], [("n1", "sleep")], 0)),
        ("backoff", ([], [], 0)),
        ("waiting_approval", ([], [("n2", "approval")], 0)),
        ("paused", ([], [], 0)),
        ("completed", ([], [], 0)),
        ("failed", ([], [], 0)),
        ("cancelled", ([], [], 0)),
    ],
)
def test_a_run_tells_what_goes_on_in_it(
    api: Caller, db: Database, state: str, expected: tuple[Any, Any, int]
) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    assert live(api, path) == expected
    full, compact = data(api.get(path)), data(api.get(f"{path}?view=compact"))
    assert full["inFlight"] == compact["inFlight"]
    assert full["waitingFor"] == compact["waitingFor"]


def test_all_that_a_run_can_wait_for_has_a_name(api: Caller, db: Database) -> None:
    path = api.new_run()
    states.bring(db, path, "sleeping")
    child = states.nested(db, path, parent_seq="3")
    parked: list[dict[str, str]] = [
        {"node_type": "'loop'"},
        {"node_type": "'metronome'", "metadata": f"""'{{"childRunId": "{child[-36:]}"}}'"""},
        {"node_type": "'function'", "connector": "'function'", "wake_at": SOON},
    ]
    for seq, columns in enumerate(parked, 2):
        states.put_step(db, path, seq, "running", **columns)
    states.put_step(db, path, 5, "waiting_approval", node_type="'approval'")

    in_flight, waiting, children = live(api, path)

    assert (in_flight, children) == ([], 1)
    assert waiting == [
        ("n1", "sleep"),
        ("n2", "loop"),
        ("n3", "nested_run"),
        ("n4", "callback"),
        ("n5", "approval"),
    ]
    steps = data(api.get(f"{path}/steps"))
    assert [step["metadata"]["waitingFor"] for step in steps] == [kind for _, kind in waiting]
    for told, step in zip(data(api.get(path))["waitingFor"], steps, strict=True):
        assert told["stepId"] == step["id"]
        assert told["until"] == step["metadata"].get("wakeAt")
        assert told["childRunId"] == step["metadata"].get("childRunId")


def test_a_node_that_drains_behind_a_cancel_is_in_flight(api: Caller, db: Database) -> None:
    path = api.new_run()
    states.bring(db, path, "running")
    api.post(f"{path}/cancel")
    (one,) = data(api.get(path))["inFlight"]
    step = data(api.get(f"{path}/steps"))[1]
    assert one == {
        "stepId": step["id"],
        "nodeId": "n2",
        "attempt": 1,
        "startedAt": step["startedAt"],
    }


def test_a_nested_run_names_those_above(api: Caller, db: Database) -> None:
    path = api.new_run()
    root = path.rpartition("/")[2]
    child = states.nested(db, path, parent_seq="7")
    leaf = data(api.get(states.nested(db, child)))
    run = data(api.get(child))
    assert (run["parentRunId"], run["rootRunId"]) == (root, root)
    assert run["parentStepId"] == f"step_{root[4:]}_000007"
    assert (leaf["parentRunId"], leaf["rootRunId"]) == (run["id"], root)
    top = data(api.get(path))
    assert [top[name] for name in ("parentRunId", "parentStepId", "rootRunId")] == [None] * 3


def test_the_runs_that_a_run_started_are_listed(api: Caller, db: Database) -> None:
    path = api.new_run()
    children = [states.nested(db, path, status) for status in ("completed", "queued", "queued")]
    states.nested(db, children[0])
    ids = [child.rpartition("/")[2] for child in children][::-1]

    def page(query: str = "") -> list[str]:
        return [run["id"] for run in data(api.get(f"{path}/children{query}"))]

    assert page() == ids
    assert page("?limit=1&offset=1") == ids[1:2]
    assert page("?status=queued") == ids[:2]
    assert page("?status=failed") == []
    assert data(api.get(path))["childCount"] == 3
    theirs = children[0].rpartition("/")[0]  # the runs of the workflow that the child is of
    parent = path.rpartition("/")[2]
    assert [run["id"] for run in data(api.get(f"{theirs}?parentRunId={parent}"))] == ids[-1:]
    refused(api.get(f"{path}/children?status=done"), 422, "invalid")


def test_a_step_in_loops_tells_the_iterations_from_the_outermost_on(
    api: Caller, db: Database
) -> None:
    path = api.new_run()
    states.put_step(db, path, 1, "running", node_id="'outer'", node_type="'loop'")
    for seq, node, kind, parent, iteration in (
        (2, "first", "transform", 1, 0),
        (3, "inner", "loop", 1, 1),
        (4, "deep", "transform", 3, 7),
    ):
        states.put_step(
            db,
            path,
            seq,
            "completed",
            node_id=f"'{node}'",
            node_type=f"'{kind}'",
            parent_seq=str(parent),
            iteration=str(iteration),
        )

    def paths(query: str = "") -> list[Any]:
        steps = data(api.get(f"{path}/steps{query}"))
        return [step["metadata"].get("iteration") for step in steps]

    outer = {"loop": "outer", "iteration": 1}
    expected = [
        None,
        [{"loop": "outer", "iteration": 0}],
        [outer],
        [outer, {"loop": "inner", "iteration": 7}],
    ]
    assert paths() == expected
    assert paths("?limit=1&offset=3") == expected[3:]


def test_a_long_trace_comes_in_pages(api: Caller, db: Database) -> None:
    path = api.new_run()
    for seq in range(1, 4):
        states.put_step(db, path, seq, "completed")
    body = api.get(f"{path}/steps?limit=2").json or {}
    assert ([step["nodeId"] for step in body["data"]], body["has_more"]) == (["n1", "n2"], True)
    body = api.get(f"{path}/steps?limit=2&offset=2").json or {}
    assert ([step["nodeId"] for step in body["data"]], body["has_more"]) == (["n3"], False)
    for query in ("limit=0", "limit=10001", "offset=-1", "after=1"):
        refused(api.get(f"{path}/steps?{query}"), 422, "invalid")
