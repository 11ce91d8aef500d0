"""A run and the runs below it, in SQL: the parts that the statements on trees are made of.

A statement that concerns a tree is a message of three, which is one round trip and one transaction.
The first takes the locks of the run, of the one above it and of the root. Whoever starts a nested
run holds the root's lock too, so from then on the tree does not grow. Then the second sees all runs
below, and locks them. Only then does the third begin, with a snapshot and a clock of its own from
after all waits: a step that a node boundary started while we waited must be seen (it is in flight),
and our time must be later than that step's.

A nested run's id is greater than those of the runs above it, and everybody locks in the order of
the ids, so that no two can wait for each other.

The planner can't know how many runs there are below one, and plans are kept while tables grow (see
``prepared.py``). So what is looked up by an index is an id, and nothing else can be:

- ``= ANY (ARRAY(...))`` can only be looked up, one value after the other;
- ``OFFSET 0`` brings the value to the index before anything else is read;
- a condition that ``IS TRUE`` is looked at in the rows that were found, by no other index; and with
  an ``IN (SELECT ...)`` in it, in a hash table.
"""

from __future__ import annotations

from app.domain.lifecycle import (
    OPEN_STEP,
    PAUSED,
    RUNNING,
    TERMINAL,
    WAITING_APPROVAL,
    sql_list,
)
from app.store import late, rows
from app.store.leases import DUE_CHANNEL

STOP_CHANNEL = "metronome_stop"  # payload: the lease's token, a space, the new status

# The run that is asked for, where it is the caller's.
TARGET = """r.id = :run_id
    AND (r.metronome_id = :metronome_id AND r.organization_id = :organization_id) IS TRUE"""

TREE = f"""tree (id) AS (
    SELECT r.id FROM runs r WHERE {TARGET}
    UNION ALL
    SELECT c.id FROM tree t, LATERAL (
        SELECT c.id FROM runs c WHERE c.parent_run_id = t.id OFFSET 0
    ) c
)"""

LOCK = (
    f"""
SELECT r.id FROM runs r WHERE r.id = ANY (ARRAY(
    SELECT unnest(ARRAY[r.root_run_id, r.parent_run_id, r.id]) FROM runs r WHERE {TARGET}
))
ORDER BY r.id FOR NO KEY UPDATE""",
    f"""
WITH RECURSIVE {TREE}
SELECT r.id FROM runs r WHERE r.id = ANY (ARRAY(SELECT id FROM tree WHERE id <> :run_id))
ORDER BY r.id FOR NO KEY UPDATE""",
)

# One moment for everything that a statement writes.
MOMENT = "moment AS MATERIALIZED (SELECT clock_timestamp() AS now)"

# The steps of the tree that have not ended, as they were before this statement wrote anything.
OPEN_STEPS = f"""open_steps AS MATERIALIZED (
    SELECT s.run_id, s.seq, s.metronome_id, s.node_id, s.connector, s.lease_token
    FROM steps s
    WHERE s.run_id = ANY (ARRAY(SELECT id FROM tree))
      AND (s.status IN ({sql_list(OPEN_STEP)})) IS TRUE
)"""

# Whoever is above a run that has ended has something to look at. A run that backs off, or is queued
# anyway, will look by itself.
SIGNALLED = f"""signalled AS (
    UPDATE runs p SET signalled = true,
        due_at = CASE
            WHEN p.lease_token IS NULL AND p.status IN ('{RUNNING}', '{WAITING_APPROVAL}')
            THEN (SELECT now FROM moment) ELSE p.due_at END
    WHERE p.id = ANY (ARRAY(SELECT parent_run_id FROM moved WHERE id = :run_id))
      AND (p.status NOT IN ({sql_list(TERMINAL)})) IS TRUE
    RETURNING p.id
)"""

# The tree once more; ``stays`` where somebody else paused a run, or one between it and the target.
RESUMABLE = f"""resumable (id, stays) AS (
    SELECT r.id, false FROM runs r WHERE {TARGET}
    UNION ALL
    SELECT c.id, t.stays OR c.status = '{PAUSED}' AND NOT c.in_doubt
        AND c.paused_by IS DISTINCT FROM :run_id
    FROM resumable t, LATERAL (SELECT * FROM runs c WHERE c.parent_run_id = t.id OFFSET 0) c
)"""

# The number of the last step of the run ``r``, never below what was confirmed before.
LAST_SEQ = """greatest(r.confirmed_seq, (
            SELECT max(s.seq) FROM steps s WHERE s.run_id = r.id))"""


def audited(moved: str, action: str, payload: str = "NULL", *, at: str = "updated_at") -> str:
    """SQL that writes one audit event for each row of ``moved``, whose columns are those of runs.

    ``payload`` is an SQL expression over the run that was asked for; the events of runs below it
    name that run. Their ids sort behind the id of its event. ``at`` says when it happened.
    """
    return f"""
    INSERT INTO audit_events (id, organization_id, metronome_id, user_id, actor_user_id,
        actor_key_id, run_id, version_id, action, payload, created_at)
    SELECT CASE WHEN id = :run_id THEN :event_id ELSE :event_id || '_'
            || lpad(CAST(row_number() OVER (ORDER BY id) AS text), 6, '0') END,
        organization_id, metronome_id, user_id, :actor_user_id, :actor_key_id, id, version_id,
        '{action}',
        CASE WHEN id = :run_id THEN {payload}
            ELSE json_build_object('cascadedFrom', CAST(:run_id AS text)) END,
        {at}
    FROM {moved}"""


def closed(moved: str, status: str) -> str:
    """SQL that ends the parked steps of the runs in ``moved``: nobody is in flight in them.

    What has come for them, and nobody has heard, is kept in their metadata.
    """
    return f"""
    UPDATE steps s SET status = '{status}', wake_at = NULL, metadata = {late.kept()},
        completed_at = m.now, updated_at = m.now
    FROM open_steps o, moment m
    WHERE s.run_id = ANY (ARRAY[o.run_id]) AND s.seq = o.seq AND o.lease_token IS NULL
      AND (s.status IN ({sql_list(OPEN_STEP)})) IS TRUE
      AND (o.run_id IN (SELECT id FROM {moved})) IS TRUE"""


def remote(moved: str) -> str:
    """SQL for the open steps of the runs in ``moved`` that connectors work at, parked or not."""
    return f"""
    SELECT run_id, seq, metronome_id, CAST(:organization_id AS text) AS organization_id, node_id,
        connector, lease_token
    FROM open_steps
    WHERE connector IS NOT NULL AND (run_id IN (SELECT id FROM {moved})) IS TRUE"""


def stop_told(moved: str) -> str:
    """SQL that tells the executors that hold runs in ``moved`` to stop them."""
    return f"""
    SELECT pg_notify('{STOP_CHANNEL}', lease_token || ' ' || status) FROM {moved}
    WHERE lease_token IS NOT NULL"""


def due_told(changed: str, condition: str = "true") -> str:
    """SQL that tells idle executors that a run is due, where a row of ``changed`` says so."""
    return f"""
    SELECT pg_notify('{DUE_CHANNEL}', '') WHERE EXISTS (SELECT FROM {changed} WHERE {condition})"""


# What the other parts need of the runs that a statement has changed, and no other column.
RETURNING = f"RETURNING {rows.columns((*rows.RUN_FIELDS, 'lease_token'), 'r')}"


def answer(*changed: str) -> str:
    """SQL for the run that was asked for as it is now, whether it was moved, what is in flight in
    its tree as texts such as ``run_1/node``, and the groups (``met_1 key``) in which the runs of
    ``changed`` may have left a place, or want one. Who holds a run still has its place.
    """
    groups = " UNION ".join(
        f"SELECT metronome_id || ' ' || concurrency_key FROM {one}"
        " WHERE concurrency_key IS NOT NULL AND lease_token IS NULL"
        for one in changed
    )
    return f"""
found AS (
    SELECT {rows.columns(rows.RUN_FIELDS, "m")}, true AS did_move FROM moved m WHERE m.id = :run_id
    UNION ALL
    SELECT {rows.columns(rows.RUN_FIELDS, "r")}, false FROM runs r
    WHERE {TARGET} AND NOT EXISTS (SELECT FROM moved WHERE id = :run_id)
)
SELECT {rows.columns(rows.RUN_FIELDS, "found")}, did_move,
    ARRAY(
        SELECT o.run_id || '/' || o.node_id FROM open_steps o
        WHERE o.lease_token IS NOT NULL ORDER BY o.run_id, o.seq
    ),
    (SELECT count(*) FROM told), {f"ARRAY({groups})" if groups else "CAST(NULL AS text[])"}"""
