"""Tidying up behind executors that died, and behind all who left a place to nobody.

One statement for both, since every executor runs it again and again, also where nothing happens.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.db import RawConnection
from app.domain.lifecycle import CLAIMABLE, FAILED, OPEN_STEP, PAUSED, sql_list
from app.store import concurrency, late, outbox
from app.store.concurrency import Group
from app.store.leases import EXECUTOR_LOST, IN_DOUBT, TOLD, counts


@dataclass(frozen=True, slots=True)
class Swept:
    """Runs of which steps were closed; and groups in which a place may be given to somebody."""

    runs: tuple[str, ...]
    groups: tuple[Group, ...]


# Runs that were stopped while an executor held them, and whose executor died before it let go. News
# that had come of a step count as they do in let_go.
_SWEEP = f"""
WITH RECURSIVE dead AS MATERIALIZED (
    SELECT id, organization_id, status, base_seq FROM runs
    WHERE lease_token IS NOT NULL AND status NOT IN ({sql_list(CLAIMABLE)})
      AND due_at <= now()
    ORDER BY due_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
),
heard AS (
    UPDATE steps s SET lease_token = NULL
    FROM dead WHERE s.run_id = dead.id AND s.lease_token IS NOT NULL AND {counts("dead")}
),
closed AS (
    UPDATE steps s SET status = '{FAILED}', error = %(error)s, lease_token = NULL, wake_at = NULL,
        metadata = {late.kept()},
        completed_at = clock_timestamp(), updated_at = clock_timestamp()
    FROM dead WHERE s.run_id = dead.id AND s.status IN ({sql_list(OPEN_STEP)})
      AND s.lease_token IS NOT NULL AND NOT {counts("dead")}
    RETURNING {TOLD}, s.unsafe AND s.seq > dead.base_seq AS doubtful, dead.organization_id
),
told AS (
    {outbox.insert("closed", "node.cancelled")}
),
swept AS (
    UPDATE runs r SET lease_token = NULL, locked_by = NULL, locked_at = NULL, due_at = NULL,
        in_doubt = r.in_doubt OR r.status = '{PAUSED}' AND d.node_id IS NOT NULL,
        error = CASE WHEN r.status = '{PAUSED}' AND d.node_id IS NOT NULL
            THEN replace('{IN_DOUBT}', '{{node}}', d.node_id) ELSE r.error END
    FROM dead, LATERAL (
        SELECT min(node_id) AS node_id FROM closed WHERE closed.run_id = dead.id AND doubtful
    ) d
    WHERE r.id = dead.id
    RETURNING r.id, r.metronome_id, r.concurrency_key
),
{concurrency.STALLED}
SELECT id, metronome_id, concurrency_key FROM swept
UNION ALL
SELECT NULL, metronome_id, concurrency_key FROM stalled
"""


def sweep(connection: RawConnection, *, limit: int = 100) -> Swept:
    """Close the steps in flight of stopped runs whose holder died, and see who could have a place.

    Their connectors are told. A step whose news has come is parked instead where its run goes on.
    The places are given by ``concurrency.settle``.
    """
    with connection.cursor() as cursor:
        cursor.execute(_SWEEP, {"limit": limit, "error": EXECUTOR_LOST})
        rows = cursor.fetchall()
    groups = dict.fromkeys((metronome, key) for _, metronome, key in rows if key is not None)
    return Swept(tuple(run_id for run_id, _, _ in rows if run_id is not None), tuple(groups))
