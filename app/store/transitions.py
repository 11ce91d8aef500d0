"""The transitions that a person asks for: cancel, pause, resume, approve, reject, retry.

One message of two statements, so one round trip and one transaction. The first takes the lock on
the run's row. Only then does the second begin, with a snapshot and a ``clock_timestamp()`` of its
own from after the wait. Both matter: a step that a node boundary started while we waited for the
lock must be seen (it is in flight), and our time must be later than that step's.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from app.domain.lifecycle import (
    ACTIONS,
    CANCEL,
    CLAIMABLE,
    OPEN_STEP,
    PAUSE,
    RESUME,
    RETRY,
    RUNNING,
    TERMINAL,
    Action,
    sql_list,
)
from app.domain.models import Actor, Transitioned
from app.ids import new_id
from app.store import rows

STOP_CHANNEL = "metronome_stop"  # payload: the run's id, a space, its new status


def _statement(action: Action) -> str:
    terminal = action.target in TERMINAL
    claimable = action.target in CLAIMABLE
    # A run that an executor still holds is due, or swept, at the end of that lease.
    free_due = "clock_timestamp()" if claimable else "NULL"
    next_attempt_at = "NULL"
    if action is PAUSE:
        next_attempt_at = "r.next_attempt_at"
    elif action is RESUME:  # a paused backoff is still a backoff when it is resumed
        free_due = "least(greatest(clock_timestamp(), r.next_attempt_at), r.deadline_at)"
        next_attempt_at = (
            "CASE WHEN r.next_attempt_at > clock_timestamp() THEN r.next_attempt_at END"
        )
    changes = [
        f"status = '{action.target}'",
        "updated_at = clock_timestamp()",
        f"completed_at = {'clock_timestamp()' if terminal else 'NULL'}",
        f"due_at = CASE WHEN r.lease_token IS NULL THEN {free_due} ELSE r.due_at END",
        f"next_attempt_at = {next_attempt_at}",
    ]
    if action is RETRY:
        changes += [
            "attempt_due = true",
            "max_attempts = greatest(r.max_attempts, r.attempt_count + 1)",
            "error = NULL",
            "output = NULL",
            "started_at = NULL",
            "deadline_at = NULL",
            "queued_at = clock_timestamp()",
        ]
    # Nobody is in flight in a step without a lease: it sleeps or waits, and ends with the run here.
    close_parked = (
        f"""
    closed AS (
        UPDATE steps s SET status = '{action.target}', completed_at = clock_timestamp(),
            updated_at = clock_timestamp(), wake_at = NULL
        FROM moved WHERE s.run_id = moved.id AND s.lease_token IS NULL
            AND s.status IN ({sql_list(OPEN_STEP)})
    ),"""
        if action is CANCEL
        else ""
    )
    return f"""
SELECT id FROM runs
WHERE id = :run_id AND metronome_id = :metronome_id AND organization_id = :organization_id
FOR NO KEY UPDATE;

WITH moved AS (
    UPDATE runs r SET {", ".join(changes)}
    WHERE r.id = :run_id AND r.metronome_id = :metronome_id
      AND r.organization_id = :organization_id AND r.status IN ({sql_list(action.sources)})
    RETURNING r.*
),{close_parked}
audited AS (
    INSERT INTO audit_events (id, organization_id, metronome_id, user_id, actor_user_id,
        actor_key_id, run_id, version_id, action, created_at)
    SELECT :event_id, organization_id, metronome_id, user_id, :actor_user_id,
        :actor_key_id, id, version_id, '{action.audit}', updated_at
    FROM moved
),
told AS (
    SELECT pg_notify('{STOP_CHANNEL}', id || ' ' || status) FROM moved WHERE lease_token IS NOT NULL
),
found AS (
    SELECT moved.*, true AS did_move FROM moved
    UNION ALL
    SELECT r.*, false FROM runs r
    WHERE r.id = :run_id AND r.metronome_id = :metronome_id
      AND r.organization_id = :organization_id AND NOT EXISTS (SELECT FROM moved)
)
SELECT {rows.columns(rows.RUN_FIELDS, "found")}, did_move,
    ARRAY(SELECT s.node_id FROM steps s WHERE s.run_id = found.id AND s.status = '{RUNNING}'
          AND s.lease_token IS NOT NULL ORDER BY s.seq) AS in_flight,
    (SELECT count(*) FROM told)
FROM found
"""


_STATEMENTS = {action.name: text(_statement(action)) for action in ACTIONS if action.audit}


def request(
    connection: Connection, action: Action, actor: Actor, metronome_id: str, run_id: str
) -> Transitioned | None:
    """Take ``action`` on a run where its status allows it; None where there is no such run.

    A run whose status does not allow it is answered unchanged, with ``moved`` False; nothing is
    written then. Otherwise the status, the steps that nobody is in flight in, the audit event and
    the notification to the executor are one transaction.
    """
    row = connection.execute(
        _STATEMENTS[action.name],
        {
            "run_id": run_id,
            "metronome_id": metronome_id,
            "organization_id": actor.organization_id,
            "event_id": new_id("evt"),
            "actor_user_id": actor.user_id,
            "actor_key_id": actor.key_id,
        },
    ).one_or_none()
    if row is None:
        return None
    moved, in_flight = row[len(rows.RUN_FIELDS)], row[len(rows.RUN_FIELDS) + 1]
    return Transitioned(rows.run(row), moved, tuple(in_flight))
