"""The transitions of whole trees that a person asks for: cancel, pause, resume.

Each is one message, so one round trip and one transaction, however many runs there are below the
one that is asked for; ``trees.py`` tells why it is made of three statements. Retry is in
``retries.py``, the decision on an approval in ``decisions.py``, and the short way to cancel a run
that stands alone in ``cancels.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from app.domain.lifecycle import (
    CANCEL,
    FAILED,
    PAUSE,
    PAUSED,
    RESUME,
    Action,
    sql_list,
)
from app.domain.models import Actor, Transitioned
from app.store import callbacks, events, outbox, rows, trees
from app.store.leases import EXECUTOR_LOST, EXECUTOR_STOPPED
from app.store.prepared import Message
from app.store.proof import ActorMessage

TREE_ACTIONS = (CANCEL, PAUSE, RESUME)

# A run that an executor still holds is due, or swept, at the end of that lease.
CANCELLED_COLUMNS = f"""status = '{CANCEL.target}', updated_at = m.now, completed_at = m.now,
        due_at = CASE WHEN r.lease_token IS NOT NULL THEN r.due_at END, next_attempt_at = NULL,
        error = CASE WHEN r.in_doubt THEN NULL ELSE r.error END,
        in_doubt = false, paused_by = NULL"""

_CANCELLED = f"""
    UPDATE runs r SET {CANCELLED_COLUMNS}
    FROM moment m
    WHERE r.id = ANY (ARRAY(SELECT id FROM tree))
      AND (r.status IN ({sql_list(CANCEL.sources)})) IS TRUE
    {trees.RETURNING}"""

_CANCEL = f"""
WITH RECURSIVE {trees.MOMENT}, {trees.TREE}, {trees.OPEN_STEPS},
moved AS ({_CANCELLED}
),
closed AS ({trees.closed("moved", CANCEL.target)}
),
remote AS ({trees.remote("moved")}
),
noted AS ({outbox.insert("remote", "node.cancelled")}
),
audited AS ({trees.audited("moved", str(CANCEL.audit), "CAST(:payload AS json)")}
),
{trees.SIGNALLED},
told AS ({trees.stop_told("moved")}
    UNION ALL {trees.due_told("signalled")}
),
{trees.answer("moved")}
FROM found
"""

# A backoff that is paused is still a backoff when the run is resumed, so its time is kept. A run
# that is paused already since one above it was is held from now on by this pause, with all below it
# that the other one paused: so a resume above leaves them paused. Nothing else changes.
_HELD = "json_build_object('held', true)"
_PAUSE = f"""
WITH RECURSIVE {trees.MOMENT}, {trees.TREE}, {trees.OPEN_STEPS},
moved AS (
    UPDATE runs r SET status = '{PAUSE.target}', updated_at = m.now, paused_by = :run_id,
        due_at = CASE WHEN r.lease_token IS NOT NULL THEN r.due_at END
    FROM moment m
    WHERE r.id = ANY (ARRAY(SELECT id FROM tree))
      AND (r.status IN ({sql_list(PAUSE.sources)})) IS TRUE
    {trees.RETURNING}
),
taken AS (
    UPDATE runs r SET paused_by = :run_id
    WHERE r.id = ANY (ARRAY(SELECT id FROM tree))
      AND (r.status = '{PAUSED}') IS TRUE AND (r.paused_by IN (SELECT id FROM tree)) IS NOT TRUE
      AND EXISTS (
        SELECT FROM runs t
        WHERE t.id = :run_id AND (t.status = '{PAUSED}' AND NOT t.in_doubt) IS TRUE
      )
    {trees.RETURNING}
),
held AS (
    SELECT * FROM taken WHERE id = :run_id
),
remote AS ({trees.remote("moved")}
),
noted AS ({outbox.insert("remote", "node.paused", where="lease_token IS NULL")}
),
audited AS ({trees.audited("moved", str(PAUSE.audit))}
),
held_audited AS ({trees.audited("held", str(PAUSE.audit), _HELD, at="(SELECT now FROM moment)")}
),
told AS ({trees.stop_told("moved")}
),
{trees.answer()}
FROM found
"""

# The runs below that may be resumed, which the statement narrows down further. Who resumes a run in
# doubt has agreed to run again what was lost in it up to now.
RESUMED = f"""
    UPDATE runs r SET status = '{RESUME.target}', updated_at = m.now,
        next_attempt_at = CASE WHEN r.next_attempt_at > m.now THEN r.next_attempt_at END,
        due_at = CASE
            WHEN r.lease_token IS NOT NULL THEN r.due_at
            WHEN NOT r.attempt_due THEN m.now
            ELSE least(greatest(m.now, r.next_attempt_at), r.deadline_at) END,
        error = CASE WHEN r.in_doubt THEN NULL ELSE r.error END,
        confirmed_seq = CASE WHEN r.in_doubt THEN {trees.LAST_SEQ} ELSE r.confirmed_seq END,
        in_doubt = false, paused_by = NULL, takeovers = 0
    FROM moment m
    WHERE r.id = ANY (ARRAY(SELECT id FROM resumable WHERE NOT stays))
      AND (r.status IN ({sql_list(RESUME.sources)})) IS TRUE"""


def heard(remote: str) -> str:
    """SQL that gives the remote sides of ``remote`` a whole heartbeat again: silence in a pause
    does not count.
    """
    return f"""
    UPDATE steps s SET wake_at = {callbacks.put_off("m.now")}
    FROM {remote} o, moment m
    WHERE s.run_id = ANY (ARRAY[o.run_id]) AND s.seq = o.seq AND o.lease_token IS NULL
      AND ({callbacks.HAS_HEARTBEAT}) IS TRUE"""


# Resumed is what this run's pause had paused; with a confirmation, what is in doubt as well. But
# what somebody paused further down stays so, with all below it, and nothing is resumed below a run
# that somebody paused.
_RESUME = f"""
WITH RECURSIVE {trees.MOMENT}, {trees.TREE}, {trees.RESUMABLE},
above (id, parent_run_id, metronome_id, holds) AS (
    SELECT r.id, r.parent_run_id, r.metronome_id, false FROM runs r WHERE {trees.TARGET}
    UNION ALL
    SELECT p.id, p.parent_run_id, p.metronome_id, p.status = '{PAUSED}' AND (NOT p.in_doubt
        OR p.id = (SELECT r.paused_by FROM runs r WHERE {trees.TARGET}))
    FROM above a, LATERAL (SELECT * FROM runs p WHERE p.id = a.parent_run_id OFFSET 0) p
),
holder AS (
    SELECT id, metronome_id FROM above WHERE holds ORDER BY id LIMIT 1
),
{trees.OPEN_STEPS},
moved AS ({RESUMED}
      AND (:confirm OR NOT r.in_doubt)
      AND (r.id = :run_id OR r.paused_by = :run_id OR r.in_doubt)
      AND NOT EXISTS (SELECT FROM holder)
      AND EXISTS (
        SELECT FROM runs t WHERE t.id = :run_id
          AND (t.status IN ({sql_list(RESUME.sources)}) AND (:confirm OR NOT t.in_doubt)) IS TRUE
      )
    {trees.RETURNING}
),
remote AS ({trees.remote("moved")}
),
noted AS ({outbox.insert("remote", "node.resumed", where="lease_token IS NULL")}
),
heard AS ({heard("remote")}
),
audited AS ({trees.audited("moved", str(RESUME.audit))}
),
told AS ({trees.due_told("moved", "lease_token IS NULL")}
),
{trees.answer("moved")},
    (SELECT id FROM holder), (SELECT metronome_id FROM holder),
    ARRAY(
        SELECT s.node_id FROM steps s
        WHERE found.in_doubt AND NOT did_move AND s.run_id = found.id AND s.unsafe
          AND s.status = '{FAILED}' AND s.error IN (:lost, :stopped)
          AND NOT EXISTS (
            SELECT FROM steps later WHERE later.run_id = s.run_id AND later.seq > s.seq
              AND later.node_id = s.node_id
          )
        ORDER BY s.seq
    )
FROM found
"""

_CANCEL_MESSAGE = ActorMessage(*trees.LOCK, _CANCEL)
MESSAGES = {
    CANCEL.name: _CANCEL_MESSAGE.plain,
    PAUSE.name: Message(*trees.LOCK, _PAUSE),
    RESUME.name: Message(*trees.LOCK, _RESUME, confirm="bool"),
}


def request(
    connection: Connection,
    action: Action,
    actor: Actor,
    metronome_id: str,
    run_id: str,
    *,
    confirm: bool = False,
    payload: str | None = None,
) -> Transitioned | None:
    """Take one of TREE_ACTIONS on a run and those below it; None where there is no such run.

    A run whose status does not allow it is answered unchanged, with ``moved`` False. Otherwise the
    statuses, the steps that nobody is in flight in, one audit event a run, what connectors are to
    be told and the notifications to the executors are one transaction. ``confirm`` lets a resume
    run nodes again that may have run; ``payload`` (JSON text) is what a cancel's audit event holds.
    """
    values: dict[str, Any] = {
        "run_id": run_id,
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
    }
    if action is CANCEL:
        values["payload"] = payload
    if action is RESUME:
        values |= {"confirm": confirm, "lost": EXECUTOR_LOST, "stopped": EXECUTOR_STOPPED}
    values |= events.parameters(actor)
    if action is CANCEL:
        row = _CANCEL_MESSAGE.row(connection, actor, values)
    else:
        row = MESSAGES[action.name].row(connection, values)
    return None if row is None else transitioned(row)


def transitioned(row: Sequence[Any]) -> Transitioned:
    """What a statement that ends with ``trees.answer`` came to."""
    run = rows.run(row)
    moved, in_flight, _, groups, *more = row[len(rows.RUN_FIELDS) :]
    pairs = [tuple(one.split("/", 1)) for one in in_flight]
    return Transitioned(
        run,
        moved,
        in_flight=tuple(node for run_id, node in pairs if run_id == run.id),
        nested_in_flight=tuple((run_id, node) for run_id, node in pairs if run_id != run.id),
        paused_above=(more[0], more[1]) if more and more[0] is not None else None,
        doubtful=tuple(more[2]) if more else (),
        groups=tuple((one[0], one[2]) for one in (group.partition(" ") for group in groups or ())),
    )
