"""Functions that say that they only compute: they ride like the nodes that are built in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.engine import riding
from tests.engine.conftest import Lab, node
from tests.engine.rides import starts, taken_over, watched
from tests.processes import wait_for

pytestmark = pytest.mark.usefixtures("functions")


def sums(node_id: str, *numbers: Any, **config: Any) -> dict[str, Any]:
    """A node that adds up."""
    payload = {"numbers": list(numbers)}
    return node("function", node_id, functionName="sums", payload=payload, **config)


def waits(tmp_path: Path) -> dict[str, Any]:
    """A node whose function only says that it computes: it waits for a gate."""
    payload = {"gate": str(tmp_path / "gate"), "path": str(tmp_path / "mark")}
    return node("function", "waits", functionName="claims_to_compute", payload=payload)


def marks(tmp_path: Path) -> int:
    """How often the function of ``waits`` was called."""
    path = tmp_path / "mark"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.usefixtures("unhurried")
def test_functions_that_only_compute_share_a_boundary(lab: Lab) -> None:
    seen = watched(lab.start())
    one, two = "{{ steps.one.output.value }}", "{{ steps.two.output.value }}"
    run = lab.queue(
        node("trigger"),
        sums("one", 1, 2),
        sums("two", one, 4),
        sums("three", two, 5, timeoutMs=60_000),
        node("end", output={"sum": "{{ steps.three.output.value }}"}),
    )
    assert lab.until(run, "completed").output == {"sum": 12}
    assert starts(seen) == [["trigger", "one", "two", "three"], ["end"], []]


@pytest.mark.usefixtures("unhurried")
def test_one_that_fails_takes_the_usual_way(lab: Lab) -> None:
    seen = watched(lab.start())
    run = lab.queue(node("trigger"), sums("one", 1), sums("bad", "x"), node("end"))
    assert "unsupported operand" in (lab.until(run, "failed").error or "")
    assert starts(seen)[0] == ["trigger", "one", "bad"]
    assert lab.statuses(run)[-1] == ("bad", "failed")


def test_one_that_waits_is_seen_to_start_from_then_on(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(riding, "WAIT_SECONDS", 0.0)
    lab.start(threads=1)
    run = lab.queue(node("trigger"), waits(tmp_path), node("end"))
    wait_for(lambda: marks(tmp_path) == 1)
    assert "waits" not in dict(lab.statuses(run)), "it has only been tried"
    (tmp_path / "gate").touch()
    lab.until(run, "completed")
    assert marks(tmp_path) == 2

    (tmp_path / "gate").unlink()
    other = lab.begin(run.metronome_id)
    wait_for(lambda: marks(tmp_path) == 3)
    assert lab.statuses(other) == [("trigger", "completed"), ("waits", "running")]
    (tmp_path / "gate").touch()
    lab.until(other, "completed")
    assert marks(tmp_path) == 3


@pytest.mark.usefixtures("unhurried")
def test_a_cancel_while_one_waits_leaves_nothing_of_it(lab: Lab, tmp_path: Path) -> None:
    lab.start()
    run = lab.queue(node("trigger"), waits(tmp_path), node("end"))
    wait_for(lambda: marks(tmp_path) == 1)
    lab.cancel(run)
    (tmp_path / "gate").touch()
    lab.until(run, "cancelled")
    assert lab.statuses(run) == [("trigger", "cancelled")]
    assert marks(tmp_path) == 1


def test_one_that_does_not_end_is_left_behind_and_its_run_goes_on_elsewhere(
    lab: Lab, tmp_path: Path
) -> None:
    first = lab.start(grace=0.05)
    run = lab.queue(node("trigger"), waits(tmp_path), node("end"))
    wait_for(lambda: marks(tmp_path) == 1)
    lab.stop(first)
    (tmp_path / "gate").touch()
    lab.start()
    lab.until(run, "completed")
    assert lab.statuses(run) == [(name, "completed") for name in ("trigger", "waits", "end")]


@pytest.mark.usefixtures("unhurried")
def test_after_a_lost_executor_it_is_seen_to_start(lab: Lab) -> None:
    nodes = (node("trigger"), node("gate"), sums("one", 1), sums("two", 1), node("end"))
    assert taken_over(lab, *nodes) == [["gate"], ["one"], ["two"], ["end"], []]
