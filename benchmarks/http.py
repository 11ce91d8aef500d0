"""What does a request cost? ``python -m benchmarks.http [--quick] [--json PATH]``

- Requests a second and latencies of cancel, create run, get run, list 100 runs and list steps
  through gunicorn, with its default settings, against ``GET /healthz``: the route of the same app
  that needs no key and no database. Same load generator, in turns.
- The cancel's message sent by bare psycopg2 on as many connections: what PostgreSQL itself takes.
- The round trips to the database that each request takes.

``--try 2x8,4x4`` measures /healthz and cancel with other numbers of workers and threads instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from benchmarks import bare, load, pictures, report
from benchmarks.load import Load, drive
from benchmarks.report import Figure, median, percentile
from benchmarks.server import KEY, Bench, Plan, Server, queue, server
from benchmarks.workflows import definition
from tests.wire import Wire

RATIO = 0.6  # of the no-op route's requests a second
ROUND_TRIPS = 2
CONNECTIONS = 32
STEPS = 10
NOOP = "GET /healthz"
CANCEL = "cancel a run"
CREATE = "create a run"
GET = "get a run"
PLAIN = definition([("n0", "trigger", {}), ("n1", "end", {})])

# Runs that have ended, with as many steps as a short workflow leaves.
_END = f"""
WITH ended AS (
    UPDATE runs SET status = 'completed', due_at = NULL, started_at = now(), completed_at = now(),
        output = '{{"n": 1}}'
    WHERE id = ANY(%s) RETURNING id, metronome_id
)
INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status, attempt, output,
    started_at, completed_at)
SELECT id, n, metronome_id, 'n' || n, 'note', 'completed', 1, '{{"n": 1}}', now(), now()
FROM ended, generate_series(1, {STEPS}) AS n
"""

Requests = Callable[[int], list[bytes]]


def operations(bench: Bench) -> dict[str, Requests]:
    """What is measured: for each name, what makes so many requests of it."""
    plan, ended = (Plan(bench, name, PLAIN) for name in ("busy", "ended"))
    ids = queue(bench.connection, ended, 200, notify=False)
    bench.sql(_END, ids)
    runs = {one: f"/v1/metronomes/{one.metronome_id}/runs" for one in (plan, ended)}
    some = [f"{runs[ended]}/{run_id}" for run_id in ids]

    def cancels(count: int) -> list[bytes]:
        queued = queue(bench.connection, plan, count, notify=False)
        return [load.request("POST", f"{runs[plan]}/{one}/cancel", key=KEY) for one in queued]

    def reads(path: str) -> Requests:
        return lambda count: [
            load.request("GET", some[number % len(some)] + path, key=KEY) for number in range(count)
        ]

    create = load.request("POST", runs[plan], key=KEY, body=b'{"input": {"n": 1}}')
    listed = load.request("GET", f"{runs[ended]}?limit=100", key=KEY)
    return {
        NOOP: lambda count: [load.request("GET", "/healthz")] * count,
        CANCEL: cancels,
        CREATE: lambda count: [create] * count,
        GET: reads(""),
        "list 100 runs": lambda count: [listed] * count,
        f"list {STEPS} steps": reads("/steps"),
    }


def _send(bench: Bench, name: str, requests: list[bytes], connections: int = CONNECTIONS) -> Load:
    done = drive((bench.settings.host, bench.settings.port), requests, connections=connections)
    assert set(done.statuses) == {201 if name == CREATE else 200}, (name, done.statuses)
    return done


def _cancelled(bench: Bench) -> int:
    return int(bench.sql("SELECT count(*) FROM audit_events WHERE action = 'run.cancelled'")[0][0])


def turns(
    bench: Bench, names: Mapping[str, Requests], *, rounds: int, requests: int
) -> dict[str, list[Load]]:
    """Send so many requests of each kind, one kind after the other, ``rounds`` times."""
    taken: dict[str, list[Load]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name, make in names.items():
            # a list of a hundred runs takes several times as long as the others
            count = requests // 4 if name.startswith("list 100") else requests
            before = _cancelled(bench)
            done = _send(bench, name, make(count))
            assert _cancelled(bench) - before == (count if name == CANCEL else 0)
            if number:  # the first round opens connections and fills caches
                taken[name].append(done)
    return taken


def rates(bench: Bench, *, rounds: int, requests: int) -> tuple[list[Figure], dict[str, Any]]:
    """Requests a second of each kind, of the no-op route's."""
    api = bench.start_api()
    taken = turns(bench, operations(bench), rounds=rounds, requests=requests)
    bench.stop(api)
    plan = Plan(bench, "bare", PLAIN)
    bench.sql("DELETE FROM runs WHERE status = 'queued'")  # those that were created
    raw = median(
        [
            bare.rate(bench, plan, count=requests, connections=CONNECTIONS)
            for _ in range(rounds + 1)
        ][1:]
    )
    data: dict[str, Any] = {}
    rows: list[tuple[object, ...]] = []
    for name, loads in taken.items():
        ratio = median([one.rate / noop.rate for one, noop in zip(loads, taken[NOOP], strict=True)])
        rate = median([one.rate for one in loads])
        p50, p99 = (
            median([percentile(one.latencies, percent) * 1000 for one in loads])
            for percent in (50, 99)
        )
        data[name] = {"requestsPerSecond": rate, "ratio": ratio, "p50Ms": p50, "p99Ms": p99}
        rows.append((name, rate, ratio, p50, p99))
    noop = data[NOOP]["requestsPerSecond"]
    # On the same processors: what is left where the API does no more than for the no-op route.
    limit = 1 / (1 / noop + 1 / raw)
    for label, one in (("(cancel's message, psycopg2)", raw), ("(that and no-op, limit)", limit)):
        rows.append((label, one, one / noop, "", ""))
        data[label.strip("()")] = {"requestsPerSecond": one, "ratio": one / noop}
    settings = bench.settings
    report.table(
        f"Requests a second through gunicorn ({settings.web_workers} workers of"
        f" {settings.web_threads} threads, {CONNECTIONS} connections, medians of {rounds})",
        ("request", "requests/s", f"of {NOOP}", "p50 ms", "p99 ms"),
        rows,
    )
    figures = [
        Figure("cancels a second", f"{data[CANCEL]['requestsPerSecond']:.0f}"),
        report.at_least(f"cancels a second, of {NOOP}", data[CANCEL]["ratio"], RATIO),
        Figure("the same, of the limit", f"{data[CANCEL]['requestsPerSecond'] / limit:.2f}"),
    ]
    return figures, data


def round_trips(postgres: Server) -> tuple[list[Figure], dict[str, int]]:
    """How often each request goes to the database, once a connection is warm."""
    with postgres.bench(web_workers=1, web_threads=1) as bench:
        made = operations(bench)
        wire = Wire(bench.settings.database_url or "")
        bench.settings = replace(bench.settings, database_url=wire.url, listen=False)
        api = bench.start_api()
        found = {}
        for name, make in made.items():
            _send(bench, name, make(2), connections=1)
            before = len(wire.queries)
            _send(bench, name, make(10), connections=1)
            found[name] = round((len(wire.queries) - before) / 10)
        bench.stop(api)
        wire.close()
    report.table("Round trips to the database", ("request", "round trips"), list(found.items()))
    most = max(found.values())
    figure = report.at_most("round trips of a request, at the most", float(most), ROUND_TRIPS)
    return [figure], found


def tried(postgres: Server, settings: str, *, rounds: int, requests: int) -> None:
    """Print what other numbers of workers and threads come to."""
    rows = []
    for one in settings.split(","):
        workers, _, threads = one.partition("x")
        with postgres.bench(web_workers=int(workers), web_threads=int(threads)) as bench:
            api = bench.start_api()
            some = {name: operations(bench)[name] for name in (NOOP, CANCEL, GET)}
            taken = turns(bench, some, rounds=rounds, requests=requests)
            bench.stop(api)
        noop = median([load.rate for load in taken.pop(NOOP)])
        rates = [median([load.rate for load in loads]) for loads in taken.values()]
        p99 = median([percentile(load.latencies, 99) * 1000 for load in taken[CANCEL]])
        rows.append((one, noop, *rates, rates[0] / noop, p99))
    report.table(
        f"Requests a second by workers and threads ({CONNECTIONS} connections)",
        ("settings", NOOP, *taken, "cancel, ratio", "p99 ms"),
        rows,
    )


def main() -> int:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--json", metavar="PATH", help="write the figures there")
    parser.add_argument("--try", dest="settings", metavar="2x8,4x4", help="workers x threads")
    options = parser.parse_args()
    rounds, requests = (1, 40) if options.quick else (options.rounds, options.requests)
    with server() as postgres:
        if options.settings:
            tried(postgres, options.settings, rounds=rounds, requests=requests)
            return 0
        with postgres.bench() as bench:
            figures, measured = rates(bench, rounds=rounds, requests=requests)
        more, trips = round_trips(postgres)
    figures += more
    report.conclude(figures)
    data = {"requests": measured, "roundTrips": trips, "figures": report.as_data(figures)}
    report.save(options.json, {"http": data})
    report.draw(options.json, pictures.http(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
