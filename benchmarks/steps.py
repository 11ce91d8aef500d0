"""How fast is the executor? ``python -m benchmarks.steps [--quick]``

Steps a second of one executor process, with 1, 8, 32 and 64 threads, against the rate at which bare
psycopg2 sends the same boundary statement with as many threads, one a commit: taken in turns on
the same database, medians of the rounds. A run is ten function nodes whose function does nothing,
so that what is measured is Metronome; and, with as many threads, ten whose function says that it
only computes, and ten built-in nodes that only compute (a trigger, notes, transforms, an end). Then
what an idle executor costs, and how soon it starts a run (benchmarks/rest.py).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import report, rest
from benchmarks.report import Figure, median
from benchmarks.server import Bench, Plan, queue, server
from tests.processes import ROOT, environment, wait_for

NODES = 10
RATIOS = {8: 1.2, 32: 2.5}  # by threads
ALONE = 1_500.0  # steps a second of one thread

_HOLD = """
UPDATE runs SET status = 'running', lease_token = id, locked_by = 'raw', started_at = now(),
    locked_at = now(), due_at = now() + interval '1 hour', attempt_count = 1, attempt_due = false
"""


def chain() -> dict[str, Any]:
    """The definition: ten nodes, one behind the other."""
    nodes: list[dict[str, Any]] = [{"id": "n1", "kind": "trigger", "config": {}}]
    for number in range(2, NODES):
        if number % 2:
            nodes.append({"id": f"n{number}", "kind": "transform", "config": {"output": {"n": 1}}})
        else:
            nodes.append({"id": f"n{number}", "kind": "note", "config": {}})
    nodes.append({"id": f"n{NODES}", "kind": "end", "config": {}})
    edges = [
        {"id": f"e{number}", "source": f"n{number}", "target": f"n{number + 1}"}
        for number in range(1, NODES)
    ]
    return {"nodes": nodes, "edges": edges}


def functions(name: str = "nothing") -> dict[str, Any]:
    """The definition: ten calls of a function that does nothing, one behind the other."""
    nodes = [
        {"id": f"n{number}", "kind": "function", "config": {"functionName": name}}
        for number in range(1, NODES + 1)
    ]
    edges = [{"source": f"n{number}", "target": f"n{number + 1}"} for number in range(1, NODES)]
    return {"nodes": nodes, "edges": edges}


def _clear(bench: Bench) -> None:
    bench.sql("TRUNCATE runs, steps, audit_events")
    bench.sql("CHECKPOINT")


def _writes(bench: Bench) -> int:
    """How many transactions have written something so far."""
    return int(bench.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")[0][0])


def _check(bench: Bench, runs: int, nodes: int = NODES) -> None:
    """Both sides must have done the same work, all of it."""
    found = bench.sql("SELECT count(*) FROM runs WHERE status = 'completed'")[0][0]
    steps = bench.sql("SELECT count(*) FROM steps WHERE status = 'completed'")[0][0]
    assert (found, steps) == (runs, runs * nodes), (found, steps)


def raw(bench: Bench, plan: Plan, threads: int, runs: int) -> tuple[float, float]:
    """Steps and commits a second of bare psycopg2."""
    _clear(bench)
    queue(bench.connection, plan, runs, notify=False)
    bench.sql(_HOLD)
    before = _writes(bench)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.raw", str(threads), str(NODES)],
        env=environment(bench.settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = float(done.stdout)
    _check(bench, runs)
    return runs * NODES / seconds, (_writes(bench) - before) / seconds


def executor(
    bench: Bench, plan: Plan, threads: int, runs: int, *, executors: int = 1, nodes: int = NODES
) -> tuple[float, float]:
    """Steps and commits a second of executor processes, from the runs' commit to the last end.

    A run of the plan has so many ``nodes``.
    """
    _clear(bench)
    processes = [
        bench.start_executor(METRONOME_EXECUTOR_THREADS=str(threads)) for _ in range(executors)
    ]
    queue(
        bench.connection, plan, 2 * threads * executors
    )  # so that its connections and caches are there
    bench.wait_until_idle()
    bench.sql("TRUNCATE runs, steps, audit_events")
    before = _writes(bench)
    queue(bench.connection, plan, runs)
    begin = bench.sql("SELECT clock_timestamp()")[0][0]
    wait_for(
        lambda: not bench.sql("SELECT 1 FROM runs WHERE status IN ('queued', 'running') LIMIT 1"),
        300,
        "the end of all runs",
    )
    commits = _writes(bench) - before
    seconds = (bench.sql("SELECT max(completed_at) FROM runs")[0][0] - begin).total_seconds()
    _check(bench, runs, nodes)
    bench.stop(*processes)
    return runs * nodes / seconds, commits / seconds


def throughput(bench: Bench, *, rounds: int, threads: list[int], runs: int) -> list[Figure]:
    """Measure all in turns; the table and the figures."""
    calls, computing = Plan(bench, "calls", functions()), Plan(bench, "computing", chain())
    pure = Plan(bench, "pure", functions("nothing_pure"))
    measured: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for count in threads:
            size = runs if count == 1 else 3 * runs
            for name, measure, plan in (
                ("psycopg2", raw, calls),
                ("function nodes", executor, calls),
                ("pure functions", executor, pure),
                ("nodes that compute", executor, computing),
            ):
                measured.setdefault((name, count), []).append(measure(bench, plan, count, size))
    rows, figures = [], []
    for count in threads:
        theirs = measured["psycopg2", count]
        for name in ("psycopg2", "function nodes", "pure functions", "nodes that compute"):
            taken = measured[name, count]
            ratio = median([a[0] / b[0] for a, b in zip(taken, theirs, strict=True)])
            values = [median([one[place] for one in taken]) for place in (0, 1)]
            rows.append((name, count, *values, "" if name == "psycopg2" else ratio))
            if name == "function nodes":
                told = f"steps/s, {count} threads, of psycopg2's"
                figures.append(
                    report.at_least(told, ratio, RATIOS[count])
                    if count in RATIOS
                    else report.at_least("steps/s, 1 thread", values[0], ALONE)
                    if count == 1
                    else Figure(told, f"{ratio:.2f}")
                )
    report.table(
        f"Steps a second (medians of {rounds}; runs of {NODES} nodes, one boundary a commit in"
        " psycopg2, durable)",
        ("sender", "threads", "steps/s", "commits/s", "ratio"),
        rows,
    )
    return figures


def main() -> int:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--json", type=Path, help="where to keep the figures")
    options = parser.parse_args()
    rounds, threads, runs = options.rounds, [1, 8, 32, 64], options.runs
    if options.quick:
        rounds, threads, runs = 1, [8], 10
    with server() as postgres, postgres.bench() as bench:
        figures = throughput(bench, rounds=rounds, threads=threads, runs=runs)
        _clear(bench)
        figures += rest.measure(bench, quick=options.quick)
    report.conclude(figures)
    report.save(options.json, {"steps": report.as_data(figures)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
