"""Approvals: what waits for a person, and what that person decides.

A decision is written into the step's ``result``, and the executor that looks at the run next ends
the step with it. So it is kept whatever the run is about: one that only waits is queued, one that
is busy with another branch, or paused, stays as it is. The two statements are one message, for the
reason that ``trees.py`` tells.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from app.domain.lifecycle import (
    APPROVE,
    REJECT,
    RUNNING,
    TERMINAL,
    WAITING_APPROVAL,
    Action,
    sql_list,
)
from app.domain.models import Actor, Approval, Decided, Decision, Page
from app.ids import step_of
from app.store import events, rows, trees
from app.store.prepared import Message

# A decision that comes behind the deadline is too late, even where nobody has looked at the run
# since: so nobody can be told "approved" of a step that ends by its deadline.
_LOCK = f"SELECT r.id FROM runs r WHERE {trees.TARGET} FOR NO KEY UPDATE"
_DECIDE = """
WITH {moment},
asked AS (
    SELECT r.* FROM runs r WHERE {target}
),
waiting AS (
    SELECT * FROM (
        SELECT s.run_id, s.seq, s.node_id, CASE
            WHEN s.result IS NOT NULL THEN 'already_decided'
            WHEN s.wake_at <= m.now THEN 'expired'
            ELSE 'decided' END AS outcome
        FROM steps s, moment m
        WHERE s.run_id = ANY (ARRAY(SELECT id FROM asked WHERE status NOT IN ({terminal})))
          AND s.status = '{waiting}'
          AND (CAST(:seq AS int) IS NULL OR s.seq = :seq)
          AND (CAST(:node_id AS text) IS NULL OR s.node_id = :node_id)
    ) s ORDER BY outcome <> 'decided', seq LIMIT 1
),
decided AS (
    UPDATE steps s SET updated_at = m.now, result = json_build_object(
        'decision', CAST(:decision AS text), 'comment', CAST(:comment AS text),
        'userId', CAST(:actor_user_id AS text), 'keyId', CAST(:actor_key_id AS text),
        'decidedAt', to_char(m.now AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
    FROM waiting w, moment m
    WHERE w.outcome = 'decided' AND s.run_id = ANY (ARRAY[w.run_id]) AND s.seq = w.seq
    RETURNING s.run_id, s.seq, s.node_id
),
moved AS (
    UPDATE runs r SET signalled = true,
        status = CASE WHEN r.status IN ({sources}) THEN '{action.target}' ELSE r.status END,
        updated_at = CASE WHEN r.status IN ({sources}) THEN m.now ELSE r.updated_at END,
        next_attempt_at = CASE WHEN r.status IN ({sources}) THEN NULL ELSE r.next_attempt_at END,
        due_at = CASE
            WHEN r.lease_token IS NULL AND r.status IN ({sources}, '{running}') THEN m.now
            ELSE r.due_at END
    FROM moment m
    WHERE r.id = ANY (ARRAY(SELECT run_id FROM decided))
    RETURNING r.*
),
audited AS (
    INSERT INTO audit_events (id, organization_id, metronome_id, user_id, actor_user_id,
        actor_key_id, run_id, version_id, action, payload, created_at)
    SELECT :event_id, organization_id, metronome_id, user_id, :actor_user_id, :actor_key_id,
        r.id, version_id, '{action.audit}', json_strip_nulls(json_build_object(
            'stepId', {step_id}, 'nodeId', d.node_id, 'comment', CAST(:comment AS text))), m.now
    FROM moved r JOIN decided d ON d.run_id = r.id, moment m
),
told AS ({told}
),
found AS (
    SELECT * FROM moved
    UNION ALL
    SELECT * FROM asked WHERE NOT EXISTS (SELECT FROM moved)
)
SELECT {run}, coalesce(w.outcome, 'not_waiting'), w.seq, w.node_id, (SELECT count(*) FROM told)
FROM found LEFT JOIN waiting w ON true
"""


def _statement(action: Action) -> str:
    return _DECIDE.format(
        target=trees.TARGET,
        moment=trees.MOMENT,
        terminal=sql_list(TERMINAL),
        waiting=WAITING_APPROVAL,
        sources=sql_list(action.sources),
        action=action,
        running=RUNNING,
        step_id=rows.step_id("d"),
        told=trees.due_told("moved", "lease_token IS NULL"),
        run=rows.columns(rows.RUN_FIELDS, "found"),
    )


MESSAGES = {
    approved: Message(_LOCK, _statement(action), seq="int")
    for approved, action in ((True, APPROVE), (False, REJECT))
}


def decide(
    connection: Connection, actor: Actor, metronome_id: str, run_id: str, decision: Decision
) -> Decided | None:
    """Approve or reject a step that waits; None where there is no such run.

    Of several people who decide at once the first one does. What comes of it is one transaction
    with the audit event.
    """
    values = {
        "run_id": run_id,
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "seq": decision.seq,
        "node_id": decision.node_id,
        "decision": "approved" if decision.approved else "rejected",
        "comment": decision.comment,
    }
    row = MESSAGES[decision.approved].row(connection, values | events.parameters(actor))
    if row is None:
        return None
    outcome, seq, node_id, _ = row[len(rows.RUN_FIELDS) :]
    return Decided(rows.run(row), outcome, seq, node_id)


# Along the index of the steps that wait: the oldest run first, whatever else it is about.
PAGE = f"""
SELECT r.id, r.metronome_id, s.seq, s.node_id, r.status, s.output ->> 'title',
    s.output ->> 'message', s.wake_at, s.started_at
FROM steps s JOIN runs r ON r.id = s.run_id
WHERE s.organization_id = :organization_id AND s.status = '{WAITING_APPROVAL}'
  AND s.result IS NULL AND (s.wake_at IS NULL OR s.wake_at > clock_timestamp())
  AND r.status NOT IN ({sql_list(TERMINAL)}) AND (s.run_id, s.seq) > (:after_run, :after_seq)
ORDER BY s.run_id, s.seq LIMIT :limit OFFSET :offset
"""


def page(connection: Connection, organization_id: str, part: Page) -> list[Approval]:
    """A page of the steps that wait for a decision, those of the oldest run first.

    All are listed that can be decided, so also those of runs that are paused or busy otherwise.
    Their cursor is a step's id.
    """
    after_run, after_seq = step_of(part.after or "") or ("", 0)
    values = {
        "organization_id": organization_id,
        "limit": part.limit,
        "offset": part.offset,
        "after_run": after_run,
        "after_seq": after_seq,
    }
    return [Approval(*row) for row in connection.execute(text(PAGE), values)]
