"""Thousands of iterations: what is kept and what is read does not grow with their number."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from app.domain.outcomes import Done, Outcome
from app.nodes.base import Context, NodeKind
from app.store import steps
from tests.engine.bodies import inside, loop, lose, sql, watch
from tests.engine.conftest import Lab, node

COUNT = 10_000


class Meter(NodeKind):
    """Measures this process at two iterations, and keeps nothing of its calls."""

    kind: ClassVar[str] = "meter"

    def __init__(self, first: int, last: int) -> None:
        self.at = (first, last)
        self.objects: list[int] = []
        self.bytes: list[int] = []
        self.ended = threading.Event()

    def run(self, context: Context) -> Outcome:
        loop = context.scope["loop"]
        index = (loop["outer"] or loop)["index"]
        if index in self.at:
            gc.collect()
            self.objects.append(len(gc.get_objects()))
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.bytes.append(pages * os.sysconf("SC_PAGE_SIZE"))
        if index == self.at[1]:
            self.ended.set()
        return Done({"n": index})

    def assert_nothing_grew(self) -> None:
        """Between the two, but by what any process grows with its work."""
        assert self.objects[1] - self.objects[0] < 1_000
        assert self.bytes[1] - self.bytes[0] < 10_000_000


@pytest.mark.timeout(120)
def test_ten_thousand_iterations_take_the_memory_of_a_few(lab: Lab) -> None:
    lab.kinds["meter"] = meter = Meter(COUNT // 10, COUNT - 1)
    lab.start(threads=1)
    run = lab.queue(
        node("trigger"),
        loop(iterations=COUNT),
        *inside("loop", node("meter")),
        node("end"),
        edges="trigger>loop loop>end",
    )
    assert meter.ended.wait(100)
    output = lab.until(run, "completed").output
    assert output
    assert (output["iterations"], output["last"]) == (COUNT, {"n": COUNT - 1})
    assert output["truncated"] is True, "the answers of all are more than an output may hold"
    assert output["outputs"][:2] == [{"n": 0}, {"n": 1}]
    written = "SELECT count(*), max(iteration) FROM steps WHERE node_id = 'meter'"
    assert sql(lab, written) == [(COUNT, COUNT - 1)]
    meter.assert_nothing_grew()


def test_loops_in_a_loop_leave_nothing_behind(lab: Lab) -> None:
    lab.kinds["meter"] = meter = Meter(100, 599)
    lab.start(threads=1)
    run = lab.queue(
        node("trigger"),
        loop("outer", iterations=600),
        *inside("outer", loop("inner", iterations=1)),
        *inside("inner", node("meter")),
        edges="trigger>outer",
    )
    assert meter.ended.wait(100)
    lab.until(run, "completed")
    meter.assert_nothing_grew()


def test_another_executor_reads_two_iterations_of_a_loop_that_goes_on(lab: Lab) -> None:
    probe = watch(lab)
    lab.start(threads=1)
    run = lab.queue(
        node("trigger"),
        loop("outer", iterations=30),
        *inside("outer", loop("inner", iterations=20), node("probe", "beside")),
        *inside("inner", node("probe", "in", holdsAt=[20, 10])),
        edges="trigger>outer inner>beside",
    )
    assert probe.begun.wait(60)
    connection = lab.db.raw(application_name="test")
    try:
        trail, last = steps.trail(connection, run.id, base=0, loops=True)
    finally:
        connection.close()
    assert sql(lab, "SELECT count(*), max(seq) FROM steps") == [(last, last)]
    assert [(s.node_id, s.iteration) for s in trail] == [
        ("trigger", None),
        ("outer", None),
        ("inner", 19),
        ("beside", 19),
        ("inner", 20),
        ("in", 9),
        ("in", 10),
    ]
    probe.begun.clear()
    lab.start(threads=1)
    lose(lab, run)
    assert probe.begun.wait(10)
    probe.open.set()
    lab.until(run, "completed")
    assert len(probe.paths("in")) == 30 * 20 + 1, "the node in flight ran again, and no other"
    assert probe.paths("beside") == [(i,) for i in range(30)]
