"""Executors that are killed while their leases have long to go: their sessions tell of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.services import concurrency, transitions
from app.store.leases import EXECUTOR_LOST
from benchmarks import checks
from benchmarks.server import Bench, Server, server
from tests.crash.conftest import Crew
from tests.processes import Process

Wait = Callable[..., Any]

LEASE = 300.0  # seconds: far beyond the patience of these tests
SOON = timedelta(seconds=15)  # in truth about one


@pytest.fixture
def crew(server_url: str, tmp_path: Path, make_crew: Callable[[Bench], Crew]) -> Iterator[Crew]:
    """A crew whose executors have long leases."""
    changes = {"lease_seconds": LEASE, "poll_seconds": 0.2, "log_level": "info"}
    with Server(server_url, tmp_path, None).bench(**changes) as bench:
        yield make_crew(bench)


# Each one waits for a lock of its own; who is alone waits for none.
_WATCHED = """
SELECT 1 WHERE %s = CASE %s WHEN 1 THEN (SELECT count(*) FROM executors WHERE lifeline) ELSE (
    SELECT count(DISTINCT (classid, objid)) FROM pg_locks WHERE locktype = 'advisory'
      AND NOT granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
) END
"""


def _start(crew: Crew, wait_for: Wait, count: int, **settings: str) -> list[Process]:
    """Start executors, and return once each of them is watched by another one."""
    started = [crew.bench.start_executor(wait=False, **settings) for _ in range(count)]
    for one in started:
        crew.bench.wait_for_executor(one)
    wait_for(lambda: crew.bench.sql(_WATCHED, count, count))
    return started


def _session(crew: Crew, kind: str, process: Process) -> int | None:
    """The backend of one of its connections."""
    rows = crew.bench.sql(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE %s",
        f"metronome {kind} %:{process.pid}:%",
    )
    return rows[0][0] if rows else None


def _now(crew: Crew) -> datetime:
    moment: datetime = crew.bench.sql("SELECT clock_timestamp()")[0][0]
    return moment


def _nothing_is_wrong(crew: Crew) -> None:
    found = checks.traces(crew.bench) + checks.side_effects(crew.bench, crew.marks)
    assert [one for one in found if one.count] == []


def _held_by(crew: Crew, process: Process) -> Callable[[str], bool]:
    return lambda run_id: f":{process.pid}:" in (crew.run(run_id)["locked_by"] or "")


def _other(crew: Crew, process: Process) -> Process:
    (other,) = (one for one in crew.bench.processes if one is not process)
    return other


@pytest.mark.parametrize("listen", ["on", "off"])
def test_the_runs_of_a_killed_executor_go_on_at_once(
    crew: Crew, wait_for: Wait, listen: str
) -> None:
    _start(crew, wait_for, 2, METRONOME_LISTEN=listen)
    run_id = crew.queue(crew.plan(crew.function("touch_file"), crew.gated()))
    wait_for(lambda: crew.marked("n2"))
    held = crew.run(run_id)
    killed_at = _now(crew)

    crew.holder(run_id).kill9()

    wait_for(lambda: crew.run(run_id)["lease_token"] != held["lease_token"])
    assert datetime.fromisoformat(crew.run(run_id)["locked_at"]) < killed_at + SOON
    crew.open_gate()
    wait_for(lambda: crew.ended(run_id))
    lost, again = (step for step in crew.trace(run_id) if step["node_id"] == "n2")
    assert (lost["status"], lost["error"]) == ("failed", EXECUTOR_LOST)
    assert (again["status"], again["attempt"]) == ("completed", lost["attempt"] + 1)
    assert len(crew.bench.sql("SELECT 1 FROM executors")) == 1
    _nothing_is_wrong(crew)


def test_two_of_three_die_at_once_and_the_third_takes_all_over(crew: Crew, wait_for: Wait) -> None:
    *victims, heir = _start(crew, wait_for, 3, METRONOME_EXECUTOR_THREADS="2")
    plan = crew.plan(crew.gated())
    queued = [crew.queue(plan) for _ in range(6)]  # as many as there are threads
    wait_for(lambda: all(crew.in_flight(run_id, "n1") for run_id in queued))
    lost = [run for run in queued if any(_held_by(crew, victim)(run) for victim in victims)]
    killed_at = _now(crew)
    for victim in victims:
        victim.signal(signal.SIGKILL)
    wait_for(lambda: len(crew.bench.sql("SELECT 1 FROM executors")) == 1)
    assert _now(crew) < killed_at + SOON

    crew.open_gate()

    wait_for(lambda: all(crew.ended(run_id) for run_id in queued))
    assert len(lost) == 4
    assert all(datetime.fromisoformat(crew.run(run)["updated_at"]) > killed_at for run in lost)
    assert _session(crew, "lifeline", heir)
    _nothing_is_wrong(crew)


def test_a_new_executor_takes_over_from_the_only_one_that_was_killed(
    crew: Crew, wait_for: Wait
) -> None:
    (victim,) = _start(crew, wait_for, 1)
    run_id = crew.queue(crew.plan(crew.gated()))
    wait_for(lambda: crew.in_flight(run_id, "n1"))
    victim.kill9()
    crew.open_gate()

    crew.bench.start_executor()

    wait_for(lambda: crew.ended(run_id))
    _nothing_is_wrong(crew)


def test_a_cancelled_run_whose_executor_dies_while_it_drains_is_closed_at_once(
    crew: Crew, wait_for: Wait
) -> None:
    _start(crew, wait_for, 2)
    plan = crew.plan(crew.gated())
    run_id = crew.queue(plan)
    wait_for(lambda: crew.in_flight(run_id, "n1"))
    done = transitions.cancel(
        crew.bench.db, crew.bench.actor, plan.metronome_id, run_id, free=concurrency.leave
    )
    assert done.in_flight == ("n1",)
    cancelled = crew.run(run_id)

    crew.holder(run_id).kill9()

    wait_for(lambda: crew.ended(run_id, "cancelled"))
    assert _now(crew) < datetime.fromisoformat(cancelled["due_at"])
    assert crew.run(run_id)["updated_at"] == cancelled["updated_at"]
    (step,) = (step for step in crew.trace(run_id) if step["node_id"] == "n1")
    assert (step["status"], step["error"]) == ("failed", EXECUTOR_LOST)
    _nothing_is_wrong(crew)


def test_who_only_loses_the_session_with_the_lock_takes_it_again(
    crew: Crew, wait_for: Wait
) -> None:
    _start(crew, wait_for, 2)
    run_id = crew.queue(crew.plan(crew.gated()))
    wait_for(lambda: crew.in_flight(run_id, "n1"))
    held, session = crew.run(run_id), _session(crew, "lifeline", crew.holder(run_id))

    crew.bench.sql("SELECT pg_terminate_backend(%s)", session)

    wait_for(lambda: _session(crew, "lifeline", crew.holder(run_id)) not in (None, session))
    wait_for(lambda: crew.bench.sql(_WATCHED, 2, 2))
    assert crew.run(run_id) == held
    crew.open_gate()
    wait_for(lambda: crew.ended(run_id))
    assert len(crew.trace(run_id)) == 3


def test_a_frozen_executor_is_not_dead_even_without_its_lock(crew: Crew, wait_for: Wait) -> None:
    _start(crew, wait_for, 2)
    run_id = crew.queue(crew.plan(crew.gated()))
    wait_for(lambda: crew.in_flight(run_id, "n1"))
    held, frozen = crew.run(run_id), crew.holder(run_id)
    frozen.signal(signal.SIGSTOP)
    watch = _session(crew, "watch", _other(crew, frozen))

    crew.bench.sql("SELECT pg_terminate_backend(%s)", _session(crew, "lifeline", frozen))

    judged = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND query LIKE '%%WITH dead%%'"
    wait_for(lambda: crew.bench.sql(judged, watch))
    assert crew.run(run_id) == held
    assert len(crew.bench.sql("SELECT 1 FROM executors")) == 2
    frozen.signal(signal.SIGCONT)
    wait_for(lambda: crew.bench.sql(_WATCHED, 2, 2))
    crew.open_gate()
    wait_for(lambda: crew.ended(run_id))
    assert len(crew.trace(run_id)) == 3


def test_nobody_is_dead_who_comes_back_late_from_a_restart_of_postgresql(
    make_crew: Callable[[Bench], Crew], wait_for: Wait
) -> None:
    changes = {"lease_seconds": LEASE, "poll_seconds": 0.2}
    with server(own=True) as postgres, postgres.bench(**changes) as bench:
        crew = make_crew(bench)
        _start(crew, wait_for, 2)
        run_id = crew.queue(crew.plan(crew.gated()))
        wait_for(lambda: crew.in_flight(run_id, "n1"))
        held, late = crew.run(run_id), crew.holder(run_id)
        assert postgres.embedded is not None
        late.signal(signal.SIGSTOP)

        os.kill(postgres.embedded.pid or 0, signal.SIGINT)
        wait_for(lambda: postgres.embedded.pid is None)
        postgres.embedded.stop()
        postgres.embedded.start()

        bench.reconnect()
        crew.bench.start_executor()
        # the other one, and one that is new, have been there for longer than their grace
        there = """
            SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'metronome watch %'
              AND backend_start < clock_timestamp() - interval '2.5 seconds'
        """
        wait_for(lambda: len(bench.sql(there)) == 2)
        assert crew.run(run_id) == held
        late.signal(signal.SIGCONT)
        wait_for(lambda: _session(crew, "lifeline", late))
        wait_for(lambda: bench.sql(_WATCHED, 3, 3))
        crew.open_gate()
        wait_for(lambda: crew.ended(run_id))
        assert [step["status"] for step in crew.trace(run_id)] == ["completed"] * 3


def test_switched_off_it_opens_no_session_and_is_watched_by_nobody(
    crew: Crew, wait_for: Wait
) -> None:
    off = crew.bench.start_executor(METRONOME_LIVENESS="off")
    crew.bench.start_executor()
    wait_for(lambda: crew.bench.sql(_WATCHED, 1, 1))
    run_id = crew.queue(crew.plan(crew.gated()))
    wait_for(lambda: crew.in_flight(run_id, "n1"))

    assert _session(crew, "lifeline", off) is None
    assert _session(crew, "watch", off) is None
    assert crew.bench.sql("SELECT lifeline FROM executors WHERE id LIKE %s", f"%:{off.pid}:%") == [
        (False,)
    ]
