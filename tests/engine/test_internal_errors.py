"""Runs that can't be walked on, by a fault that is not theirs."""

from __future__ import annotations

import pytest

from tests.engine.conftest import Lab, node


@pytest.mark.parametrize("last", ["flaky", "note", "note note"])
def test_what_has_ended_stays_in_the_trace_of_a_run_that_can_not_go_on(lab: Lab, last: str) -> None:
    """As where a newer process has made the run, and knows more kinds of nodes."""
    lab.start()
    known = [node(kind, f"n{number}") for number, kind in enumerate(last.split())]
    run = lab.queue(node("trigger"), node("flaky", "before"), *known, node("unheard_of"))
    assert lab.until(run, "failed").error == "internal error: KeyError"
    ended = ["trigger", "before", *(one["id"] for one in known)]
    assert lab.statuses(run) == [(name, "completed") for name in ended]
