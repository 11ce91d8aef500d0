"""Cancel a run: the short way for a run that stands alone, and else that of a whole tree.

Most runs have no run above or below them, and no step that waits for anything. The statement for
trees prepares itself for all that there could be, which takes PostgreSQL longer than what it then
does. So the short message goes first, which is two statements as everywhere: lock, then act with a
snapshot and a clock from after the wait. Where the run turns out to be none of its kind it changes
nothing, and the message for trees follows.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from app.domain.lifecycle import CANCEL, OPEN_STEP, sql_list
from app.domain.models import Actor, Transitioned
from app.store import events, rows, transitions, trees
from app.store.proof import ActorMessage

# Whoever starts a nested run locks the row of the run at the top, which is this one: so what is
# below it when the lock is held, is all that will be. A step that is parked has to be closed, and a
# connector to be told. All of this is looked at before the lock is waited for as well: who is none
# of its kind waits in the line of the trees from the first, and loses no place in it.
_ALONE = f"""{trees.TARGET}
  AND (r.parent_run_id IS NULL AND r.status IN ({sql_list(CANCEL.sources)})) IS TRUE
  AND NOT EXISTS (SELECT FROM runs c WHERE c.parent_run_id = :run_id)
  AND NOT EXISTS (
    SELECT FROM steps s WHERE s.run_id = :run_id AND (s.status IN ({sql_list(OPEN_STEP)})) IS TRUE
      AND (s.lease_token IS NULL OR s.connector IS NOT NULL)
  )"""

# Nothing is locked in vain: a lock alone is a write already, which a commit waits for. The second
# statement must know what was locked: a run that stands alone only since then may be starting
# something just now, which its snapshot does not have. So the message notes it in a setting of its
# transaction.
_LOCKED = "metronome_cancel.locked"
_LOCK = f"""
SELECT set_config('{_LOCKED}', l.id, true)
FROM (SELECT r.id FROM runs r WHERE {_ALONE} FOR NO KEY UPDATE) l"""

_ACT = f"""
WITH {trees.MOMENT},
open_steps AS MATERIALIZED (
    SELECT s.run_id, s.seq, s.node_id FROM steps s
    WHERE s.run_id = :run_id AND (s.status IN ({sql_list(OPEN_STEP)})) IS TRUE
),
moved AS (
    UPDATE runs r SET {transitions.CANCELLED_COLUMNS}
    FROM moment m
    WHERE {_ALONE} AND current_setting('{_LOCKED}', true) = :run_id
    {trees.RETURNING}
),
audited AS ({trees.audited("moved", str(CANCEL.audit), "CAST(:payload AS json)")}
),
told AS ({trees.stop_told("moved")}
)
SELECT {rows.columns(rows.RUN_FIELDS, "m")}, true,
    ARRAY(SELECT o.run_id || '/' || o.node_id FROM open_steps o ORDER BY o.seq),
    (SELECT count(*) FROM told),
    CASE WHEN m.concurrency_key IS NOT NULL AND m.lease_token IS NULL
        THEN ARRAY[m.metronome_id || ' ' || m.concurrency_key] END
FROM moved m
"""

MESSAGE = ActorMessage(_LOCK, _ACT)


def values(
    actor: Actor, metronome_id: str, run_id: str, payload: str | None = None
) -> dict[str, Any]:
    """What MESSAGE is sent with."""
    return {
        "run_id": run_id,
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "payload": payload,
        **events.parameters(actor),
    }


def cancel(
    connection: Connection,
    actor: Actor,
    metronome_id: str,
    run_id: str,
    *,
    payload: str | None = None,
) -> Transitioned | None:
    """Cancel a run and those below it, as ``transitions.request`` does it.

    ``payload`` (JSON text) is what the audit event holds. Raises KeyUnproven.
    """
    row = MESSAGE.row(connection, actor, values(actor, metronome_id, run_id, payload))
    if row is not None:
        return transitions.transitioned(row)
    return transitions.request(connection, CANCEL, actor, metronome_id, run_id, payload=payload)
