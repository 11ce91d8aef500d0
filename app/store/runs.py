"""The runs table, as the API and the command line use it.

How runs begin is in starts.py. The executor's side is in boundary.py (between two nodes) and
leases.py (claim, renew, let go).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.domain.lifecycle import OPEN_STEP, sql_list
from app.domain.models import Actor, OpenStep, Run, RunView
from app.store import events, rows, trees
from app.store.prepared import Message
from app.store.proof import ActorMessage

_RUN = rows.columns(rows.RUN_FIELDS, "r")


_GET = text(f"""
SELECT {_RUN} FROM runs r
WHERE r.id = :run_id AND r.metronome_id = :metronome_id AND r.organization_id = :organization_id
""")


def get(connection: Connection, organization_id: str, metronome_id: str, run_id: str) -> Run | None:
    """The run, or None where it is unknown, of another workflow or of another organization."""
    row = connection.execute(
        _GET,
        {"run_id": run_id, "metronome_id": metronome_id, "organization_id": organization_id},
    ).one_or_none()
    return None if row is None else rows.run(row)


# The run ``r``, and what goes on in it just now: what ``view_of`` makes a RunView of.
VIEW_COLUMNS = f"""{_RUN},
    (SELECT count(*) FROM runs c WHERE c.parent_run_id = r.id),
    (
        SELECT json_agg(json_build_array(s.seq, s.node_id, s.node_type, s.status, s.attempt,
            s.connector, s.started_at, s.wake_at, s.lease_token IS NULL,
            s.metadata ->> 'childRunId') ORDER BY s.seq)
        FROM steps s
        WHERE s.run_id = r.id AND s.status IN ({sql_list(OPEN_STEP)})
          AND (r.completed_at IS NULL OR r.lease_token IS NOT NULL)
    )"""
VIEW_WIDTH = len(rows.RUN_FIELDS) + 2

VIEW_MESSAGE = ActorMessage(f"""
SELECT {VIEW_COLUMNS}
FROM runs r
WHERE {trees.TARGET}
""")


def view(connection: Connection, actor: Actor, metronome_id: str, run_id: str) -> RunView | None:
    """The run with what goes on in it just now, in one statement; None as for ``get``.

    Raises KeyUnproven.
    """
    values = {
        "run_id": run_id,
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
    }
    row = VIEW_MESSAGE.row(connection, actor, values)
    return None if row is None else view_of(row)


def view_of(row: Sequence[Any]) -> RunView:
    """A RunView from a row that begins with VIEW_COLUMNS."""
    children, steps = row[len(rows.RUN_FIELDS) : VIEW_WIDTH]
    return RunView(rows.run(row), tuple(_open_step(step) for step in steps or ()), children)


def _open_step(step: list[Any]) -> OpenStep:
    seq, node_id, node_type, status, attempt, connector, started, wakes, *rest = step
    started_at, wake_at = (
        None if moment is None else datetime.fromisoformat(moment) for moment in (started, wakes)
    )
    return OpenStep(seq, node_id, node_type, status, attempt, connector, started_at, wake_at, *rest)


_ATTACHED_EVENT = events.insert(
    "(SELECT * FROM attached WHERE changed) a",
    "run.updated",
    metronome_id="metronome_id",
    run_id="id",
    version_id="version_id",
    payload="""json_build_object('before', json_build_object('attachedProjectId', old_project_id,
        'attachedTicketId', old_ticket_id), 'after', json_build_object('attachedProjectId',
        attached_project_id, 'attachedTicketId', attached_ticket_id))""",
)

_ATTACH = text(f"""
WITH before AS (
    SELECT r.id, r.attached_project_id AS project_id, r.attached_ticket_id AS ticket_id
    FROM runs r
    WHERE r.id = :run_id AND r.metronome_id = :metronome_id
      AND r.organization_id = :organization_id
    FOR NO KEY UPDATE
),
attached AS (
    UPDATE runs r SET
        attached_project_id = CASE WHEN :set_project THEN :project_id ELSE b.project_id END,
        attached_ticket_id = CASE WHEN :set_ticket THEN :ticket_id ELSE b.ticket_id END,
        updated_at = clock_timestamp()
    FROM before b WHERE r.id = b.id
    RETURNING {_RUN}, b.project_id AS old_project_id, b.ticket_id AS old_ticket_id,
        (b.project_id, b.ticket_id)
            IS DISTINCT FROM (r.attached_project_id, r.attached_ticket_id) AS changed
),
audited AS (
    {_ATTACHED_EVENT}
)
SELECT * FROM attached
""")


def attach(
    connection: Connection,
    actor: Actor,
    metronome_id: str,
    run_id: str,
    changes: Mapping[str, str | None],
) -> Run | None:
    """Set ``attached_project_id`` and ``attached_ticket_id`` as far as ``changes`` names them."""
    values = {
        "run_id": run_id,
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "set_project": "attached_project_id" in changes,
        "project_id": changes.get("attached_project_id"),
        "set_ticket": "attached_ticket_id" in changes,
        "ticket_id": changes.get("attached_ticket_id"),
    }
    row = connection.execute(_ATTACH, values | events.parameters(actor)).one_or_none()
    return None if row is None else rows.run(row)


# The steps go with their run, and the runs below it too: they are a part of its trace; and so do
# messages to connectors that were given up, but not those that are yet to be sent. A run that
# an executor still holds keeps them all from being deleted, and so does a run above that still
# waits for this one.
_DELETE = f"""
WITH RECURSIVE {trees.TREE},
busy AS (
    SELECT FROM runs r
    WHERE r.id = ANY (ARRAY(SELECT id FROM tree))
      AND (r.completed_at IS NULL OR r.lease_token IS NOT NULL)
    UNION ALL
    SELECT FROM runs p
    WHERE p.id = ANY (ARRAY(SELECT r.parent_run_id FROM runs r WHERE {trees.TARGET}))
      AND p.completed_at IS NULL
),
gone AS (
    DELETE FROM runs WHERE id = ANY (ARRAY(SELECT id FROM tree)) AND NOT EXISTS (SELECT FROM busy)
    RETURNING *, clock_timestamp() AS now
),
steps_gone AS (
    DELETE FROM steps WHERE run_id = ANY (ARRAY(SELECT id FROM gone))
),
given_up AS (
    DELETE FROM outbox WHERE run_id = ANY (ARRAY(SELECT id FROM gone)) AND (due_at IS NULL) IS TRUE
),
audited AS ({trees.audited("gone", "run.deleted", "json_build_object('status', status)", at="now")}
)
SELECT id FROM gone WHERE id = :run_id
"""
DELETE_MESSAGE = Message(*trees.LOCK, _DELETE)


def delete(connection: Connection, actor: Actor, metronome_id: str, run_id: str) -> bool:
    """Delete a run that has ended, with its steps and all runs below it.

    False where there is no such run, or where it can't be deleted: one of them has not ended, is
    still held, or is waited for by a run above.
    """
    values = {
        "run_id": run_id,
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
    }
    return DELETE_MESSAGE.row(connection, values | events.parameters(actor)) is not None
