"""Retry: a run that has failed, was cancelled, or is in doubt, is queued once more.

From the start everything that came before is left in the trace and out of account (``base_seq``,
``base_attempt``). Behind the finished steps it goes on where it stood. What still goes on below the
run belongs to the attempt that is given up, and is cancelled; but where a run in doubt goes on
behind its finished steps, its other branches go on with it, and so does what its pause had paused
below it, as in a resume. What is in doubt below it stays so.

Where its workflow limits how many runs are at work, a run that has ended waits for a place again,
behind all others; one whose node is still in flight has never left its own.
"""

from __future__ import annotations

from sqlalchemy import Connection

from app.domain.lifecycle import CANCEL, FAILED, PAUSED, RESUME, RETRY, RETRY_IN_DOUBT, sql_list
from app.domain.models import Actor, Transitioned
from app.store import events, outbox, trees
from app.store.prepared import Message
from app.store.transitions import RESUMED, heard, transitioned

_FROM = f"json_build_object('from', CASE WHEN :afresh THEN 'start' ELSE '{FAILED}' END)"

_RETRY = f"""
WITH RECURSIVE {trees.MOMENT}, {trees.TREE}, {trees.OPEN_STEPS}, {trees.RESUMABLE},
asked AS (
    SELECT r.id, r.status = '{PAUSED}' AND NOT :afresh AS keeps
    FROM runs r
    WHERE {trees.TARGET} AND (r.parent_run_id IS NULL
      AND (r.status IN ({sql_list(RETRY.sources)})
        OR r.status IN ({sql_list(RETRY_IN_DOUBT.sources)}) AND r.in_doubt)) IS TRUE
),
moved AS (
    UPDATE runs r SET status = '{RETRY.target}', updated_at = m.now, queued_at = m.now,
        completed_at = NULL, started_at = NULL, deadline_at = NULL, next_attempt_at = NULL,
        error = NULL, output = NULL, in_doubt = false, paused_by = NULL, takeovers = 0,
        confirmed_seq = CASE WHEN :afresh OR a.keeps THEN {trees.LAST_SEQ}
            ELSE r.confirmed_seq END,
        signalled = r.signalled AND a.keeps,
        admitted = r.concurrency_key IS NULL
            OR r.admitted AND (r.completed_at IS NULL OR r.lease_token IS NOT NULL),
        due_at = CASE WHEN r.lease_token IS NULL THEN m.now ELSE r.due_at END,
        attempt_due = true, max_attempts = greatest(r.max_attempts, r.attempt_count + 1),
        base_seq = CASE WHEN :afresh THEN greatest(r.base_seq, b.seq) ELSE r.base_seq END,
        base_attempt = CASE
            WHEN :afresh THEN greatest(r.base_attempt, b.attempt) ELSE r.base_attempt END
    FROM moment m, asked a, LATERAL (
        SELECT max(s.seq) AS seq, max(s.attempt) AS attempt FROM steps s
        WHERE :afresh AND s.run_id = a.id
    ) b
    WHERE r.id = ANY (ARRAY[a.id])
    {trees.RETURNING}
),
stopped AS (
    UPDATE runs r SET status = '{CANCEL.target}', updated_at = m.now, completed_at = m.now,
        due_at = CASE WHEN r.lease_token IS NOT NULL THEN r.due_at END, next_attempt_at = NULL,
        error = CASE WHEN r.in_doubt THEN NULL ELSE r.error END,
        in_doubt = false, paused_by = NULL
    FROM moment m, asked a
    WHERE r.id = ANY (ARRAY(SELECT id FROM tree)) AND r.id <> a.id AND NOT a.keeps
      AND (r.status IN ({sql_list(CANCEL.sources)})) IS TRUE
    {trees.RETURNING}
),
resumed AS ({RESUMED}
      AND (r.paused_by = :run_id AND NOT r.in_doubt) IS TRUE AND r.id <> :run_id
      AND EXISTS (SELECT FROM asked WHERE keeps)
    {trees.RETURNING}
),
goes_on AS (
    SELECT id FROM resumed UNION ALL SELECT m.id FROM moved m, asked a WHERE a.keeps
),
resumed_remote AS ({trees.remote("goes_on")}
),
resumed_noted AS (
    {outbox.insert("resumed_remote", "node.resumed", where="lease_token IS NULL")}
),
heard AS ({heard("resumed_remote")}
),
given_up AS (
    SELECT id FROM stopped UNION ALL SELECT m.id FROM moved m, asked a WHERE NOT a.keeps
),
closed AS ({trees.closed("given_up", CANCEL.target)}
),
remote AS ({trees.remote("given_up")}
),
noted AS ({outbox.insert("remote", "node.cancelled")}
),
audited AS ({trees.audited("moved", str(RETRY.audit), _FROM)}
),
stopped_audited AS ({trees.audited("stopped", str(CANCEL.audit))}
),
resumed_audited AS ({trees.audited("resumed", str(RESUME.audit))}
),
told AS ({trees.stop_told("stopped")}
    UNION ALL {trees.due_told("moved", "lease_token IS NULL")}
    UNION ALL {trees.due_told("resumed", "lease_token IS NULL")}
),
{trees.answer("moved", "stopped", "resumed")}
FROM found
"""
MESSAGE = Message(*trees.LOCK, _RETRY, afresh="bool")


def retry(
    connection: Connection, actor: Actor, metronome_id: str, run_id: str, *, afresh: bool
) -> Transitioned | None:
    """Queue a run once more: ``afresh`` from the start, else behind its finished steps.

    None where there is no such run; unchanged, with ``moved`` False, where it is nested, has not
    ended, or has completed. One more attempt is allowed than have begun, at the least.
    """
    values = {
        "run_id": run_id,
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "afresh": afresh,
    }
    row = MESSAGE.row(connection, values | events.parameters(actor))
    return None if row is None else transitioned(row)
