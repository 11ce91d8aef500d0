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
CPU_PERCENT = 0.5
STATEMENTS = 20.0  # a minute
RSS_MB = 80.0
WAITING = 10_000  # runs beside which an executor rests

_TICKS = os.sysconf("SC_CLK_TCK")


def measure(bench: Bench, *, quick: bool) -> list[Figure]:
    """The start latency through the API, then the rest; both tables and the figures."""
    figures = _latency(bench, count=10 if quick else 300)
    seconds = 2 if quick else 60
    figures += _rest(bench, "an idle executor", seconds=seconds)
    _put_waiting(bench, 100 if quick else WAITING)
    title = f"an idle executor beside {WAITING:,} runs that sleep or wait"
    return figures + _rest(bench, title, seconds=seconds)


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


# A third each sleeps for long, waits for an approval, and waits for a nested run.
_WAIT = """
WITH waiting AS (
    INSERT INTO runs (id, organization_id, metronome_id, user_id, version_id, trigger_type, input,
        status, due_at, started_at, attempt_count, attempt_due)
    SELECT 'run_' || lpad(to_hex(n), 32, '0'), %s, %s, %s, %s, 'manual', '{}',
        CASE n %% 3 WHEN 0 THEN 'waiting_approval' ELSE 'running' END,
        CASE n %% 3 WHEN 1 THEN clock_timestamp() + interval '1 day' ELSE 'infinity' END,
        clock_timestamp(), 1, false
    FROM generate_series(1, %s) AS n
    RETURNING id, metronome_id, status, due_at, started_at
)
INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status, attempt, started_at)
SELECT id, 1, metronome_id, 'n', 'delay', status, 1, started_at FROM waiting
"""


def _put_waiting(bench: Bench, count: int) -> None:
    plan = Plan(bench, "waiting", {"nodes": [{"id": "n", "kind": "end", "config": {}}]})
    bench.sql(_WAIT, *plan.columns, count)
    bench.sql("ANALYZE runs; ANALYZE steps")


def _rest(bench: Bench, title: str, *, seconds: float) -> list[Figure]:
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
        f"{title}, over {passed:.0f} s (statements: transactions in the database)",
        ("threads", "CPU s/min", "% of a core", "statements/min", "RSS MB"),
        [(bench.settings.executor_threads, cpu * 0.6, cpu, statements, rss)],
    )
    return [
        report.at_most(f"{title}, CPU", cpu, CPU_PERCENT, "% of a core"),
        report.at_most(f"{title}, statements", statements, STATEMENTS, " a minute"),
        report.at_most(f"{title}, memory", rss, RSS_MB, " MB"),
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
