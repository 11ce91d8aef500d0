"""Fills a database with runs that have ended in all ways, as a service would have after a year.

Ids sort as those of ``app.ids``, one run after the other through ninety days. Of a thousand runs
ten sleep, one waits for an approval and one is paused; the others have ended. Each has two steps
and the audit event of its start.
"""

from __future__ import annotations

import random

from benchmarks.server import Bench, Plan
from benchmarks.workflows import definition

STEPS = 2
SLEEPING = range(1, 11)  # of a thousand
_BATCH = 500_000
_BEGIN = 1_760_000_000_000  # ms since 1970
_PERIOD = 90 * 86_400_000  # ms

_RUN_ID = """'run_' || lpad(to_hex({begin} + n::bigint * {period} / {size}), 12, '0') || '7'
        || lpad(to_hex(n), 19, '0')"""

_RUNS = """
INSERT INTO runs (id, organization_id, metronome_id, user_id, version_id, trigger_type, input,
    status, output, error, attempt_count, attempt_due, due_at, queued_at, started_at, completed_at,
    created_at, updated_at)
SELECT id, {columns}, 'manual', '{{"customer": "c-1234", "n": 1}}', status,
    CASE status WHEN 'completed' THEN '{{"done": true, "n": 1}}'::json END,
    CASE status WHEN 'failed' THEN 'n1: it did not work' END, 1, false,
    CASE status WHEN 'running' THEN now() + interval '1 day' WHEN 'waiting_approval' THEN 'infinity'
        END, at, at, CASE WHEN status IN ('completed', 'failed', 'cancelled') THEN at END, at, at
FROM (
    SELECT {run_id} AS id,
        CASE WHEN n % 1000 BETWEEN 1 AND 10 THEN 'running' WHEN n % 1000 = 13 THEN
            'waiting_approval' WHEN n % 1000 = 14 THEN 'paused' WHEN n % 20 = 15 THEN 'failed'
            WHEN n % 40 = 16 THEN 'cancelled' ELSE 'completed' END AS status,
        to_timestamp(({begin} + n::bigint * {period} / {size}) / 1000.0) AS at
    FROM generate_series({first}, {last}) n
) made
"""
_TRACE = """
INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status, attempt, output,
    started_at, completed_at, created_at, updated_at)
SELECT {run_id}, seq, '{metronome_id}', 'n' || seq, 'note', 'completed', 1, '{{"n": 1}}', now(),
    now(), now(), now()
FROM generate_series({first}, {last}) n, generate_series(1, {steps}) seq;
INSERT INTO audit_events (id, organization_id, metronome_id, user_id, actor_user_id, actor_key_id,
    run_id, version_id, action, payload)
SELECT 'evt' || substr({run_id}, 4), {columns_of_event}, {run_id}, '{version_id}', 'run.created',
    '{{"triggerType": "manual"}}'
FROM generate_series({first}, {last}) n
"""


def fill(bench: Bench, size: int) -> Plan:
    """Put ``size`` runs into the database; the workflow that they are of."""
    plan = Plan(bench, f"{size} runs", definition([("n1", "trigger", {}), ("n2", "end", {})]))
    organization, metronome, user, version = plan.columns
    words = {
        "begin": _BEGIN,
        "period": _PERIOD,
        "run_id": _RUN_ID.format(begin=_BEGIN, period=_PERIOD, size=size),
        "columns": f"'{organization}', '{metronome}', '{user}', '{version}'",
        "columns_of_event": f"'{organization}', '{metronome}', '{user}', '{user}', 'key_1'",
        "metronome_id": metronome,
        "version_id": version,
        "steps": STEPS,
        "size": size,
    }
    bench.sql("SET synchronous_commit = off")
    for first in range(1, size + 1, _BATCH):
        part = {**words, "first": first, "last": min(size, first + _BATCH - 1)}
        bench.sql(_RUNS.format(**part))
        bench.sql(_TRACE.format(**part))
    bench.sql("RESET synchronous_commit")
    for table in ("runs", "steps", "audit_events"):
        bench.sql(f"VACUUM (ANALYZE) {table}")
    bench.sql("CHECKPOINT")
    return plan


def anywhere(size: int, count: int, *, sleeping: bool = False) -> list[str]:
    """The ids of runs all over the table: completed ones, or such that sleep, each of them once.

    Fewer than ``count`` where the table has not so many that sleep.
    """
    if sleeping:
        places = [n for n in range(1, size + 1) if n % 1000 in SLEEPING]
        return [_id(n, size) for n in random.sample(places, min(count, len(places)))]
    return [_id(random.randrange(size // 20) * 20 + 17, size) for _ in range(count)]


def _id(number: int, size: int) -> str:
    return f"run_{_BEGIN + number * _PERIOD // size:012x}7{number:019x}"
