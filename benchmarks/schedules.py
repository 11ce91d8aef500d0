"""A schedule through crashes. ``python -m benchmarks.schedules [--seconds 60] [--quick]``

A workflow is due every second, and two executors start its runs. A quarter into the time one of
them is killed with ``kill -9``, at the half PostgreSQL is restarted, and then comes a new executor.
At the end each due time has to have exactly one run, and each run one recorded event. Exit code 1
where that is not so.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from app.services import metronomes
from benchmarks import report
from benchmarks.report import percentile
from benchmarks.server import Bench, Server, server
from tests.processes import wait_for
from tests.schedules import next_due, publish, runs_by_time, told

LEASE = 3.0  # seconds
PATIENCE = 60.0  # seconds for a run that is to come

# However slow the machine is, nothing is too late for a run of its own.
SCHEDULE = {"intervalSeconds": 1, "catchUpSeconds": 3600}


@dataclass(frozen=True, slots=True)
class Played:
    """What was found at the end: what differs from one run for each due time, and how late."""

    due: int
    wrong: dict[str, int]  # due time to its number of runs, where that is not one
    unrecorded: int  # runs without their event, and events without their run
    others: int  # events that were not matched
    late: list[float]  # seconds from each due time to its run


def play(postgres: Server, bench: Bench, *, count: int) -> Played:
    """Let ``count`` due times and the crashes pass; pause the workflow, and look at everything."""
    victim, *_ = [bench.start_executor() for _ in range(2)]
    metronome_id = publish(bench.db, bench.actor, SCHEDULE)
    first = next_due(bench.db, metronome_id)
    assert first is not None

    def enough(number: int) -> None:
        statement = "SELECT 1 FROM runs WHERE metronome_id = %s OFFSET %s LIMIT 1"
        wait_for(lambda: bench.sql(statement, metronome_id, number - 1), PATIENCE + count)

    enough(count // 4)
    victim.kill9()
    bench.processes.remove(victim)
    enough(count // 2)
    _restart(postgres, bench)
    bench.start_executor()
    enough(count)
    metronomes.update(bench.db, bench.actor, metronome_id, {"status": "paused"})
    bench.wait_until_idle()

    found = runs_by_time(bench.db, metronome_id)
    expected = told(*(first + number * timedelta(seconds=1) for number in range(len(found))))
    times = sorted({*found, *expected})
    matched = bench.sql("SELECT run_id FROM trigger_events WHERE status = 'matched'")
    queued = bench.sql("SELECT id FROM runs WHERE status = 'completed'")
    lateness = "extract(epoch FROM created_at - CAST(input ->> 'scheduledTime' AS timestamptz))"
    return Played(
        due=len(found),
        wrong={one: found.get(one, 0) for one in times if found.get(one) != expected.get(one)},
        unrecorded=len(set(matched) ^ set(queued)) + len(matched) - len(set(matched)),
        others=bench.sql("SELECT count(*) FROM trigger_events WHERE status <> 'matched'")[0][0],
        late=[row[0] for row in bench.sql(f"SELECT CAST({lateness} AS float8) FROM runs")],
    )


def _restart(postgres: Server, bench: Bench) -> None:
    embedded = postgres.embedded
    assert embedded is not None
    os.kill(embedded.pid or 0, signal.SIGINT)
    wait_for(lambda: embedded.pid is None)
    embedded.stop()
    embedded.start()
    bench.reconnect()
    bench.db.close()  # what is pooled has died


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it, print what was found; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="due times (default 60)")
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    options = parser.parse_args(arguments)
    count = 8 if options.quick else max(8, options.seconds)
    with server(own=True) as postgres, postgres.bench(lease_seconds=LEASE) as bench:
        played = play(postgres, bench, count=count)
    report.table(
        "A schedule of every second, one executor killed, PostgreSQL restarted",
        ("", ""),
        [
            ("due times", played.due),
            ("without exactly one run", len(played.wrong)),
            ("runs and events that don't belong together", played.unrecorded),
            ("events that were not matched", played.others),
            ("from the due time to the run, p50 s", percentile(played.late, 50)),
            ("the same, p90 s", percentile(played.late, 90)),
            ("the same, max s", max(played.late)),
        ],
    )
    kept = not (played.wrong or played.unrecorded or played.others)
    print("Every promise was kept." if kept else f"PROMISES WERE BROKEN: {played.wrong}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
