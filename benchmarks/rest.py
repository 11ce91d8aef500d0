"""An idle executor: how soon it starts a run, and what it costs while there is none."""

from __future__ import annotations

import http.client
import os
import random
import time
from pathlib import Path

from app.db import Database
from benchmarks import report
from benchmarks.report import Figure, percentile
from benchmarks.server import KEY, Bench, Plan
from tests import servers

START_P50_MS = 10.0
CPU_PERCENT = 1.0
STATEMENTS = 30.0  # a minute
RSS_MB = 90.0

_TICKS = os.sysconf("SC_CLK_TCK")


def measure(bench: Bench, *, quick: bool) -> list[Figure]:
    """The start latency through the API, then the rest; both tables and the figures."""
    figures = _latency(bench, count=10 if quick else 300)
    return figures + _rest(bench, seconds=2 if quick else 60)


def _latency(bench: Bench, *, count: int) -> list[Figure]:
    nodes = [{"id": "a", "kind": "trigger", "config": {}}, {"id": "b", "kind": "end", "config": {}}]
    plan = Plan(bench, "latency", {"nodes": nodes, "edges": [{"source": "a", "target": "b"}]})
    api, executor = bench.start_api(), bench.start_executor()
    connection = http.client.HTTPConnection(bench.settings.host, bench.settings.port, timeout=10)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    path = f"/v1/metronomes/{plan.metronome_id}/runs"
    for number in range(count + 10):
        connection.request("POST", path, "{}", headers)
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
        answer.read()
        bench.wait_until_idle()
        time.sleep(random.uniform(0.02, 0.06))
        if number == 9:  # the first ones open connections and fill caches
            bench.sql("TRUNCATE runs, steps, audit_events")
    taken = [
        row[0] * 1000
        for row in bench.sql(
            "SELECT extract(epoch FROM min(s.started_at) - r.queued_at)::float8"
            " FROM runs r JOIN steps s ON s.run_id = r.id GROUP BY r.id"
        )
    ]
    connection.close()
    bench.stop(api, executor)
    p50, p99 = percentile(taken, 50), percentile(taken, 99)
    report.table(
        "From queuedAt (inside of the API's transaction, before its commit) to the first node's"
        " startedAt, idle executor",
        ("runs", "p50 ms", "p99 ms"),
        [(len(taken), p50, p99)],
    )
    return [report.at_most("start of a run, p50", p50, START_P50_MS, " ms")]


def _rest(bench: Bench, *, seconds: float) -> list[Figure]:
    if bench.own_server:  # its transactions would be counted
        bench.sql("ALTER SYSTEM SET autovacuum = off")
        bench.sql("SELECT pg_reload_conf()")
    executor = bench.start_executor()
    time.sleep(0.5 if seconds < 10 else 12)  # the statistics of the start have to be flushed
    before = _cpu(executor.pid), _transactions(bench), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - before[2]
    cpu = 100 * (_cpu(executor.pid) - before[0]) / passed
    statements = (_transactions(bench) - before[1]) * 60 / passed
    rss = _rss(executor.pid)
    bench.stop(executor)
    report.table(
        f"An idle executor, over {passed:.0f} s (statements: transactions in the database)",
        ("threads", "CPU s/min", "% of a core", "statements/min", "RSS MB"),
        [(bench.settings.executor_threads, cpu * 0.6, cpu, statements, rss)],
    )
    return [
        report.at_most("idle executor, CPU", cpu, CPU_PERCENT, "% of a core"),
        report.at_most("idle executor, statements", statements, STATEMENTS, " a minute"),
        report.at_most("idle executor, memory", rss, RSS_MB, " MB"),
    ]


def _transactions(bench: Bench) -> int:
    """How many have been committed; asked from another database, so as not to be counted."""
    name = bench.sql("SELECT current_database()")[0][0]
    other = Database(servers.in_database(bench.settings.database_url or "", "postgres"))
    with other.raw() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = %s", (name,))
        (counted,) = cursor.fetchone() or (0,)
    connection.close()
    return int(counted)


def _cpu(pid: int) -> float:
    """Seconds of CPU that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise LookupError(pid)
