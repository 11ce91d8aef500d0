"""What does a cancel cost? ``python -m benchmarks.cancel [--quick]``

- Cancels a second through gunicorn, with its default workers, against ``GET /healthz``: the route
  of the same app that needs no key and no database. Same load generator, in turns.
- The cancel in a table of 1,000 runs against one of 1,000,000: one request at a time, in turns. The
  runs that are cancelled are the newest (what people cancel), and, without a target, runs that lie
  all over the table, whose pages are in no cache.
- How soon after the cancel an interruptible node (http, delay) of the run has ended.
"""

from __future__ import annotations

import argparse
import socket
import sys
from functools import partial
from typing import Any

from benchmarks import load, report
from benchmarks.load import Load, drive
from benchmarks.report import Figure, median, percentile
from benchmarks.server import KEY, Bench, Plan, Server, queue, server
from tests.processes import wait_for

GROWTH = 1.2
STOPPED_MS = 100.0
CONNECTIONS = 8
SIZES = (1_000, 1_000_000)

# One run in a hundred is still queued; the others have ended in all ways, with a step each.
_FILL = """
INSERT INTO runs (id, organization_id, metronome_id, user_id, version_id, trigger_type, input,
    status, output, attempt_count, due_at, started_at, completed_at)
SELECT 'run_' || lpad(to_hex(n), 32, '0'), %s, %s, %s, %s, 'manual', '{"n": 1}',
    CASE WHEN n %% 100 = 0 THEN 'queued'
        ELSE (ARRAY['completed', 'failed', 'cancelled'])[n %% 3 + 1] END,
    CASE WHEN n %% 100 > 0 THEN '{"done": true}'::json END, 1,
    CASE WHEN n %% 100 = 0 THEN now() END, now(), CASE WHEN n %% 100 > 0 THEN now() END
FROM generate_series(1, %s) AS n
"""
_FILL_STEPS = """
INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status, attempt, started_at,
    completed_at)
SELECT id, 1, metronome_id, 'a', 'trigger', 'completed', 1, now(), now() FROM runs
WHERE status <> 'queued'
"""


def _definition(*nodes: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    made = [
        {"id": f"n{place}", "kind": kind, "config": config}
        for place, (kind, config) in enumerate(nodes)
    ]
    edges = [{"source": f"n{place}", "target": f"n{place + 1}"} for place in range(len(nodes) - 1)]
    return {"nodes": made, "edges": edges}


PLAIN = _definition(("trigger", {}), ("end", {}))


def _address(bench: Bench) -> tuple[str, int]:
    return bench.settings.host, bench.settings.port


def _cancels(plan: Plan, ids: list[str]) -> list[bytes]:
    path = f"/v1/metronomes/{plan.metronome_id}/runs"
    return [load.request("POST", f"{path}/{run_id}/cancel", key=KEY) for run_id in ids]


def _cancel_all(bench: Bench, plan: Plan, ids: list[str], *, connections: int) -> Load:
    done = drive(_address(bench), _cancels(plan, ids), connections=connections)
    assert set(done.statuses) == {200}, done.statuses
    cancelled = "SELECT count(*) FROM runs WHERE id = ANY(%s) AND status = 'cancelled'"
    assert bench.sql(cancelled, ids)[0][0] == len(ids)
    return done


def rate(bench: Bench, *, rounds: int, requests: int) -> list[Figure]:
    """Cancels a second against the no-op route."""
    plan = Plan(bench, "rate", PLAIN)
    api = bench.start_api()
    taken: dict[str, list[Load]] = {"GET /healthz": [], "POST .../cancel": []}
    for number in range(rounds + 1):
        noop = drive(
            _address(bench), [load.request("GET", "/healthz")] * requests, connections=CONNECTIONS
        )
        assert set(noop.statuses) == {200}, noop.statuses
        ids = queue(bench.connection, plan, requests)
        cancel = _cancel_all(bench, plan, ids, connections=CONNECTIONS)
        if number:  # the first round opens connections and fills caches
            taken["GET /healthz"].append(noop)
            taken["POST .../cancel"].append(cancel)
    bench.stop(api)
    rates = {name: median([one.rate for one in loads]) for name, loads in taken.items()}
    ratio = median([c.rate / n.rate for n, c in zip(*taken.values(), strict=True)])
    report.table(
        f"Requests a second through gunicorn ({bench.settings.web_workers} workers of"
        f" {bench.settings.web_threads} threads, {CONNECTIONS} connections, medians of {rounds})",
        ("request", "requests/s", "p50 ms", "p99 ms", "of /healthz"),
        [
            (
                name,
                rates[name],
                median([percentile(one.latencies, 50) * 1000 for one in loads]),
                median([percentile(one.latencies, 99) * 1000 for one in loads]),
                ratio if "cancel" in name else 1.0,
            )
            for name, loads in taken.items()
        ],
    )
    return [
        Figure("cancels a second", f"{rates['POST .../cancel']:.0f}"),
        Figure("cancels a second, of GET /healthz", f"{ratio:.2f}"),
    ]


def _filled(bench: Bench, size: int) -> Plan:
    plan = Plan(bench, f"{size} runs", PLAIN)
    bench.sql(_FILL, *plan.columns, size)
    bench.sql(_FILL_STEPS)
    for statement in ("VACUUM (ANALYZE) runs", "VACUUM (ANALYZE) steps", "CHECKPOINT"):
        bench.sql(statement)
    return plan


def growth(postgres: Server, *, rounds: int, requests: int, sizes: tuple[int, int]) -> list[Figure]:
    """The cost of a cancel by the size of the table, both in one server and in turns."""
    with postgres.bench(web_workers=1) as small, postgres.bench(web_workers=1) as big:
        benches = dict(zip(sizes, (small, big), strict=True))
        plans = {size: _filled(bench, size) for size, bench in benches.items()}
        for bench in benches.values():
            bench.start_api()
        taken: dict[tuple[str, int], list[list[float]]] = {}
        for number in range(rounds + 1):
            for size in sizes if number % 2 else sizes[::-1]:
                bench, plan = benches[size], plans[size]
                for name in ("newest", "anywhere"):
                    ids = _chosen(bench, plan, name, requests)
                    latencies = _cancel_all(bench, plan, ids, connections=1).latencies
                    if number:
                        taken.setdefault((name, size), []).append(latencies)
    return _growth_figures(taken, rounds, sizes)


def _chosen(bench: Bench, plan: Plan, name: str, requests: int) -> list[str]:
    if name == "newest":
        return queue(bench.connection, plan, requests)
    found = bench.sql(
        "SELECT id FROM runs WHERE status = 'queued' ORDER BY random() LIMIT %s", requests
    )
    if len(found) < requests:  # a small table: all of it is in the cache anyway
        return queue(bench.connection, plan, requests)
    return [row[0] for row in found]


def _growth_figures(
    taken: dict[tuple[str, int], list[list[float]]], rounds: int, sizes: tuple[int, int]
) -> list[Figure]:
    rows, figures = [], []
    for name in ("newest", "anywhere"):
        ratio = median(
            [
                percentile(big, 50) / percentile(small, 50)
                for small, big in zip(taken[name, sizes[0]], taken[name, sizes[1]], strict=True)
            ]
        )
        for size in sizes:
            p50, p99 = (
                median([percentile(one, percent) * 1000 for one in taken[name, size]])
                for percent in (50, 99)
            )
            rows.append((name, size, p50, p99, ratio if size == sizes[1] else 1.0))
        if name == "newest":
            figures.append(report.at_most("cancel's p50, big table to small", ratio, GROWTH))
        else:
            figures.append(Figure("the same, runs all over the table", f"{ratio:.2f}"))
    report.table(
        f"One cancel after the other, by the number of runs in the table (medians of {rounds})",
        ("cancelled runs", "table", "p50 ms", "p99 ms", "p50 ratio"),
        rows,
    )
    return figures


_STARTED = "SELECT 1 FROM steps WHERE run_id = %s AND node_id = 'n1'"


def stopping(bench: Bench, *, cancels: int) -> list[Figure]:
    """How long after the cancel a node in flight has ended, in the database's time."""
    silent = socket.create_server(("127.0.0.1", 0), backlog=1000)  # accepts, and never answers
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
    api, executor = bench.start_api(), bench.start_executor()
    rows, figures = [], []
    for name, config in (("http", {"url": url}), ("delay", {"seconds": 0.9})):
        plan = Plan(bench, name, _definition(("trigger", {}), (name, config), ("end", {})))
        for _ in range(cancels):
            (run_id,) = queue(bench.connection, plan, 1)
            wait_for(partial(bench.sql, _STARTED, run_id))
            _cancel_all(bench, plan, [run_id], connections=1)
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
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    quick, rounds = options.quick, 1 if options.quick else options.rounds
    with server() as postgres:
        with postgres.bench() as bench:
            figures = rate(bench, rounds=rounds, requests=50 if quick else 3000)
            figures += stopping(bench, cancels=3 if quick else 100)
        figures += growth(
            postgres,
            rounds=rounds,
            requests=20 if quick else 1000,
            sizes=(100, 1000) if quick else SIZES,
        )
    report.conclude(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
