"""How soon has a node in flight ended? ``python -m benchmarks.cancel [--quick] [--json PATH]``

From the cancel of a run to the end of the interruptible node (http, delay) that was in flight in
it. What a cancel itself costs is in ``http.py`` and ``growth.py``.
"""

from __future__ import annotations

import argparse
import socket
import sys
from functools import partial

from benchmarks import load, report
from benchmarks.report import Figure, percentile
from benchmarks.server import KEY, Bench, Plan, queue, server
from benchmarks.workflows import definition
from tests.processes import wait_for

STOPPED_MS = 20.0


def _cancel(bench: Bench, plan: Plan, run_id: str) -> None:
    path = f"/v1/metronomes/{plan.metronome_id}/runs/{run_id}/cancel"
    request = load.request("POST", path, key=KEY)
    done = load.drive((bench.settings.host, bench.settings.port), [request], connections=1)
    assert set(done.statuses) == {200}, done.statuses


_STARTED = "SELECT 1 FROM steps WHERE run_id = %s AND node_id = 'n1'"


def stopping(bench: Bench, *, cancels: int) -> list[Figure]:
    """How long after the cancel a node in flight has ended, in the database's time."""
    silent = socket.create_server(("127.0.0.1", 0), backlog=1000)  # accepts, and never answers
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
    api, executor = bench.start_api(), bench.start_executor()
    rows, figures = [], []
    for name, config in (("http", {"url": url}), ("delay", {"seconds": 0.9})):
        nodes = [("n0", "trigger", {}), ("n1", name, config), ("n2", "end", {})]
        plan = Plan(bench, name, definition(nodes))
        for _ in range(cancels):
            (run_id,) = queue(bench.connection, plan, 1)
            wait_for(partial(bench.sql, _STARTED, run_id))
            _cancel(bench, plan, run_id)
        bench.wait_until_idle()
        taken = [
            row[0] * 1000
            for row in bench.sql(
                "SELECT extract(epoch FROM s.completed_at - r.completed_at)::float8 FROM steps s"
                " JOIN runs r ON r.id = s.run_id WHERE s.metronome_id = %s AND s.node_id = 'n1'",
                plan.metronome_id,
            )
        ]
        p50, p99, most = percentile(taken, 50), percentile(taken, 99), max(taken)
        rows.append((name, len(taken), p50, p99, most))
        figures.append(
            report.at_most(f"{name} node ends after its cancel, p99", p99, STOPPED_MS, " ms")
        )
    bench.stop(api, executor)
    silent.close()
    report.table(
        "From the cancel to the end of the node in flight",
        ("node", "cancels", "p50 ms", "p99 ms", "max ms"),
        rows,
    )
    return figures


def main() -> int:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    parser.add_argument("--json", metavar="PATH", help="write the figures there")
    options = parser.parse_args()
    with server() as postgres, postgres.bench() as bench:
        figures = stopping(bench, cancels=3 if options.quick else 100)
    report.conclude(figures)
    report.save(options.json, {"cancel": {"figures": report.as_data(figures)}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
