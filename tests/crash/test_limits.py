"""Places in groups, when the executor that held them, or was to give them on, is killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.domain.models import Run
from app.services import concurrency, starts, transitions
from benchmarks import checks
from benchmarks.server import Plan
from tests.crash.conftest import Crew

Wait = Callable[..., Any]


def _limited(crew: Crew, most: int) -> Plan:
    """A workflow whose runs stand at the gate, so many at once."""
    plan = crew.plan(crew.gated())
    crew.bench.sql(
        "UPDATE metronomes SET max_concurrent_runs = %s WHERE id = %s", most, plan.metronome_id
    )
    return plan


def _begin(crew: Crew, plan: Plan) -> Run:
    bench = crew.bench
    request = starts.RunRequest()
    run, _ = starts.create(bench.db, bench.actor, plan.metronome_id, request, tell=lambda: None)
    return run


def _at_work(crew: Crew) -> int:
    """How many runs have ever had a step in flight at the same time, at the most."""
    return int(
        crew.bench.sql(
            """SELECT max(n) FROM (
                SELECT (
                    SELECT count(DISTINCT o.run_id) FROM steps o
                    WHERE o.started_at <= s.started_at
                      AND coalesce(o.completed_at, 'infinity') > s.started_at
                ) AS n FROM steps s
            ) counted"""
        )[0][0]
    )


def test_a_run_of_a_killed_executor_keeps_its_place_until_it_has_ended(
    crew: Crew, wait_for: Wait
) -> None:
    executor = crew.bench.start_executor()
    plan = _limited(crew, 1)
    first, second = _begin(crew, plan), _begin(crew, plan)
    wait_for(lambda: crew.in_flight(first.id, "n1"))
    executor.kill9()
    crew.bench.start_executor()
    wait_for(lambda: len(crew.trace(first.id)) > 2, message="the first run is taken over")
    assert not crew.run(second.id)["admitted"]
    crew.open_gate()
    wait_for(lambda: crew.ended(first.id))
    wait_for(lambda: crew.ended(second.id))
    assert _at_work(crew) == 1
    assert [one for one in checks.traces(crew.bench) if one.count] == []


def test_the_place_of_a_cancelled_run_whose_executor_was_killed_is_given_on(
    crew: Crew, wait_for: Wait
) -> None:
    executor = crew.bench.start_executor()
    plan = _limited(crew, 1)
    first, second = _begin(crew, plan), _begin(crew, plan)
    wait_for(lambda: crew.in_flight(first.id, "n1"))
    transitions.cancel(
        crew.bench.db, crew.bench.actor, plan.metronome_id, first.id, free=concurrency.leave
    )
    executor.kill9()
    assert not crew.run(second.id)["admitted"]
    crew.open_gate()
    crew.bench.start_executor()
    wait_for(lambda: crew.ended(second.id))
    assert crew.run(first.id)["status"] == "cancelled"
    assert _at_work(crew) == 1


def test_a_place_is_given_on_where_the_executor_is_killed_just_before_it_does_so(
    crew: Crew, wait_for: Wait
) -> None:
    executor = crew.bench.start_executor()
    plan = _limited(crew, 1)
    first, second = _begin(crew, plan), _begin(crew, plan)
    wait_for(lambda: crew.in_flight(first.id, "n1"))
    holder = crew.bench.db.raw(application_name="test holder")
    holder.autocommit = False
    with holder.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM metronomes WHERE id = %s FOR NO KEY UPDATE", (plan.metronome_id,)
        )
    crew.open_gate()
    wait_for(lambda: crew.ended(first.id))
    waiting = """SELECT pid FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND application_name = 'metronome'"""
    ((pid,),) = wait_for(lambda: crew.bench.sql(waiting), message="the executor wants the lock")
    executor.kill9()
    crew.bench.sql("SELECT pg_terminate_backend(%s)", pid)  # or its statement would still be done
    wait_for(lambda: not crew.bench.sql(waiting))
    holder.rollback()
    holder.close()
    assert not crew.run(second.id)["admitted"]

    crew.bench.start_executor()

    wait_for(lambda: crew.ended(second.id))
    assert _at_work(crew) == 1


def test_a_run_that_was_begun_while_nobody_was_there_gets_the_place(
    crew: Crew, wait_for: Wait
) -> None:
    plan = _limited(crew, 2)
    runs = [_begin(crew, plan) for _ in range(6)]
    crew.open_gate()
    executors = [crew.bench.start_executor() for _ in range(2)]
    wait_for(lambda: crew.ended(runs[0].id))
    executors[0].kill9()
    for run in runs:
        wait_for(lambda one=run.id: crew.ended(one))
    assert _at_work(crew) <= 2
