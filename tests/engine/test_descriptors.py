"""File descriptors: an executor leaves none behind, and their numbers don't matter."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from app.db import OWNER_LENGTH
from app.engine.executor import Executor
from tests.engine.conftest import Lab, node
from tests.processes import PATIENCE, wait_for

FDS = "/dev/fd"
ABOVE = 1100  # select() knows descriptors up to 1,023


@pytest.fixture
def high_descriptors() -> Iterator[None]:
    """Whatever is opened has a number that select() doesn't know."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = 2 * ABOVE
    if hard not in (resource.RLIM_INFINITY,) and hard < room:
        pytest.skip(f"not more than {hard} descriptors are allowed here")
    if soft != resource.RLIM_INFINITY and soft < room:
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
    opened = [os.open(os.devnull, os.O_RDONLY)]
    while opened[-1] < ABOVE:
        opened.append(os.dup(opened[0]))
    yield
    for one in opened:
        os.close(one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("high_descriptors")
def test_an_executor_listens_and_is_watched_above_a_thousand_descriptors(lab: Lab) -> None:
    first, second = lab.start(poll=600.0), lab.start(poll=600.0)
    wait_for(lambda: first._listener.live and second._listener.live)
    wait_for(lambda: first._lifeline._pid and second._lifeline._pid)
    # Notified of, since nobody polls before the test would be given up.
    lab.until(lab.queue(node("trigger"), node("end")), "completed")
    assert first._listener.live
    assert second._listener.live


@pytest.mark.parametrize("listen", [True, False])
def test_an_executor_that_has_ended_leaves_no_descriptor_open(lab: Lab, listen: bool) -> None:
    def cycle() -> list[str]:
        executor = lab.start(listen=listen)
        lab.until(lab.queue(node("trigger"), node("end")), "completed")
        lab.stop(executor)
        return os.listdir(FDS)

    before = len(cycle())
    for _ in range(3):
        after = cycle()
    assert len(after) <= before, after


def test_a_node_that_was_left_behind_leaves_no_connection_open_when_it_ends(lab: Lab) -> None:
    executor = lab.start(grace=0.0)
    run = lab.queue(node("gate"), node("end"))
    assert lab.gate.begun.wait(PATIENCE)
    lab.stop(executor)
    assert lab.get(run).status == "running"
    assert any(worker.is_alive() for worker in executor._workers)

    lab.gate.open.set()  # now it writes how it has ended, in vain
    wait_for(lambda: not any(worker.is_alive() for worker in executor._workers))
    wait_for(lambda: _sessions(lab, executor) == [])
    assert lab.statuses(run) == [("gate", "failed")]


def _sessions(lab: Lab, executor: Executor) -> list[str]:
    asked = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE :owner"
    with lab.db.connect() as connection:
        owner = {"owner": f"%{executor.id[-OWNER_LENGTH:]}"}
        return list(connection.execute(text(asked), owner).scalars())
