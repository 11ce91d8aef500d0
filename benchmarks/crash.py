"""Kill executors under load. ``python -m benchmarks.crash [--kills 50] [--quick]``

Three executor processes walk runs whose functions leave marks in a file. One after the other is
killed with ``kill -9`` in the middle of its work and replaced; of the runs that it held, one is
cancelled while nobody has it. Measured is how soon somebody else goes on with the others: from the
kill to the first start, while the leases of the dead have long to go. At the end every trace is
read, and compared with the marks. Exit code 1 where anything is not as promised.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from app.services import concurrency, transitions
from benchmarks import checks, report, workflows
from benchmarks.checks import Violations
from benchmarks.report import Figure, percentile
from benchmarks.server import Bench, Plan, queue, server
from tests.processes import Process, wait_for

LEASE = 30.0  # seconds
TAKE_OVER = 3.0  # seconds
EXECUTORS = 3
ACTIVE = 16  # runs at a time: two thirds of what the executors could hold


class Feeder(threading.Thread):
    """Keeps ``ACTIVE`` runs going, until ``end``."""

    def __init__(self, bench: Bench, plans: Sequence[Plan]) -> None:
        super().__init__(daemon=True)
        self._bench = bench
        self._plans = plans
        self._ended = threading.Event()
        self.queued: list[str] = []

    def run(self) -> None:
        """Queue a run whenever there are too few."""
        connection = self._bench.db.raw(application_name="benchmark")
        active = "SELECT count(*) FROM runs WHERE status IN ('queued', 'running')"
        while not self._ended.wait(0.02):
            with connection.cursor() as cursor:
                cursor.execute(active)
                (count,) = cursor.fetchone() or (0,)
            for _ in range(ACTIVE - count):
                self.queued += queue(connection, random.choice(self._plans), 1)
        connection.close()

    def end(self) -> None:
        """Queue no more."""
        self._ended.set()
        self.join()


@dataclass(slots=True)
class Kill:
    """One kill, and what the executor had held."""

    at: datetime  # database time
    tokens: dict[str, str]  # run id to the dead lease
    cancelled: str | None = None
    gaps: list[float] = field(default_factory=list)  # seconds to the first start of another


def kill(bench: Bench, process: Process, *, cancel: bool) -> Kill:
    """Kill the executor; cancel one of its runs where there is one."""
    process.kill9()
    bench.processes.remove(process)
    held = bench.sql(
        "SELECT id, lease_token, metronome_id FROM runs"
        " WHERE locked_by LIKE %s AND status = 'running'",
        f"%:{process.pid}:%",
    )
    done = Kill(bench.sql("SELECT clock_timestamp()")[0][0], {row[0]: row[1] for row in held})
    if cancel and held:
        run_id, _, metronome_id = random.choice(held)
        answer = transitions.cancel(
            bench.db, bench.actor, metronome_id, run_id, free=concurrency.leave
        )
        if answer.moved:
            done.cancelled = run_id
    return done


def taken_over(bench: Bench, kills: list[Kill]) -> Violations:
    """Wait until no dead lease is left on any run; in time or not, the figures say."""
    tokens = [token for one in kills for token in one.tokens.values()]
    left = "SELECT id, status, due_at FROM runs WHERE lease_token = ANY(%s)"
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not bench.sql(left, tokens))
    rows = bench.sql(left, tokens)
    return Violations("runs that nobody took over, or swept", len(rows), rows[:3])


def measure(bench: Bench, kills: list[Kill]) -> None:
    """How long each run stood still; a run that only had to end counts to its end."""
    for one in kills:
        for run_id in one.tokens:
            if run_id == one.cancelled:
                continue
            # A statement that the dead process had sent may have been committed just afterwards.
            first = bench.sql(
                "SELECT extract(epoch FROM least(min(s.started_at), max(r.completed_at)) - %s)"
                "::float8 FROM runs r LEFT JOIN steps s ON s.run_id = r.id"
                " AND s.started_at > %s + interval '0.3 seconds'"
                " WHERE r.id = %s AND (r.completed_at IS NULL OR r.completed_at > %s)",
                *(one.at, one.at, run_id, one.at),
            )[0][0]
            if first is not None and first > 0.3:
                one.gaps.append(first)


def judge(bench: Bench, feeder: Feeder, kills: list[Kill]) -> list[Violations]:
    """What must be true of the runs that were hit."""
    statuses = dict(bench.sql("SELECT id, status FROM runs"))
    lost = [run_id for run_id in feeder.queued if run_id not in statuses]
    stopped = {one.cancelled for one in kills if one.cancelled}
    undone = [(r, statuses[r]) for r in stopped if statuses[r] != "cancelled"]
    broken = [(r, s) for r, s in statuses.items() if r not in stopped and s != "completed"]
    return [
        Violations("runs that are gone", len(lost), lost[:3]),
        Violations("cancelled runs that went on", len(undone), undone[:3]),
        Violations("other runs that did not complete", len(broken), broken[:3]),
    ]


def main() -> int:
    """Kill, wait, check; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="3 kills")
    parser.add_argument("--without-listen", action="store_true", help="with polling only")
    options = parser.parse_args()
    count = 3 if options.quick else options.kills
    with (
        server() as postgres,
        postgres.bench(lease_seconds=LEASE, listen=not options.without_listen) as bench,
    ):
        marks = postgres.home / "marks"
        plans = [Plan(bench, name, one) for name, one in workflows.that_end(marks).items()]
        executors = [bench.start_executor() for _ in range(EXECUTORS)]
        feeder, kills, left = Feeder(bench, plans), [], []
        feeder.start()
        for number in range(count):
            time.sleep(random.uniform(0.2, 1.0))
            place = random.randrange(EXECUTORS)
            kills.append(kill(bench, executors[place], cancel=number % 2 == 0))
            executors[place] = bench.start_executor(wait=False)
            found = taken_over(bench, kills[-1:])
            left += [found] if found.count else []
        feeder.end()
        bench.wait_until_idle(120)
        measure(bench, kills)
        kept, in_time = _report(bench, feeder, kills, left, marks_path=marks)
        kept = kept and (in_time or options.quick)  # that only shows that it works
        print("Every promise was kept." if kept else "PROMISES WERE BROKEN.")
        return 0 if kept else 1


def _report(
    bench: Bench, feeder: Feeder, kills: list[Kill], left: list[Violations], *, marks_path: Path
) -> tuple[bool, bool]:
    """Print everything; whether every check holds, and whether no figure missed its target."""
    gaps = [gap for one in kills for gap in one.gaps]
    held = sum(len(one.tokens) for one in kills)
    again = bench.sql("SELECT count(*) FROM steps WHERE metadata::jsonb ? 'replayOf'")[0][0]
    report.table(
        f"{len(kills)} kills of one of {EXECUTORS} executors, lease {LEASE:g} s",
        ("", ""),
        [
            ("runs", len(feeder.queued)),
            ("runs held by the killed", held),
            ("of these cancelled while dead", sum(one.cancelled is not None for one in kills)),
            ("nodes replayed", again),
            ("take-overs measured", len(gaps)),
            ("take-over, p50 s", percentile(gaps, 50) if gaps else "none"),
            ("take-over, max s", max(gaps, default="none")),
        ],
    )
    print("Violations:\n")
    found = judge(bench, feeder, kills) + left
    found += checks.traces(bench) + checks.side_effects(bench, marks_path)
    kept = checks.print_all(found)
    figures: list[Figure] = []
    if gaps:
        figures = [report.at_most("take-over, from the kill", max(gaps), TAKE_OVER, " s")]
    return kept, report.conclude(figures)


if __name__ == "__main__":
    sys.exit(main())
