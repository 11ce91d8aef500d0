"""The runs table, as the API and the command line use it.

The executor's side is in boundary.py (between two nodes) and leases.py (claim, renew, let go).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, text
from sqlalchemy.sql import ColumnElement

from app.domain.lifecycle import OPEN_STEP, QUEUED, sql_list
from app.domain.models import Actor, OpenStep, Run, RunView
from app.store import events, rows, trees
from app.store.metronomes import ARCHIVED
from app.store.prepared import Message
from app.store.schema import runs

_RUN = rows.columns(rows.RUN_FIELDS, "r")
_TABLE_RUN = [runs.c[name] for name in rows.RUN_FIELDS]


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a run is created with; ``input`` is JSON text.

    Without ``version_id`` it is a run of the version that holds the workflow's draft.
    """

    id: str
    metronome_id: str
    version_id: str | None
    trigger_type: str
    input: str
    idempotency_key: str | None
    max_attempts: int
    timeout_ms: int | None
    attached_project_id: str | None
    attached_ticket_id: str | None


@dataclass(frozen=True, slots=True)
class Created:
    """What asking for a run came to.

    ``run`` is the one that is queued now; where it is None, ``metronome_status`` and
    ``version_id`` (None where there is no such version, or the draft has none yet) tell why, or
    the idempotency key is taken.
    """

    metronome_status: str
    version_id: str | None
    run: Run | None


_CREATED_EVENT = events.insert(
    "created",
    "run.created",
    metronome_id="metronome_id",
    run_id="id",
    version_id="version_id",
    payload="json_build_object('triggerType', trigger_type)",
)

_CREATE = text(f"""
WITH wanted AS (
    SELECT m.id, m.organization_id, m.status, v.id AS version_id
    FROM metronomes m
    LEFT JOIN versions v ON v.id = coalesce(:version_id, m.draft_version_id)
        AND v.metronome_id = m.id
    WHERE m.id = :metronome_id AND m.organization_id = :organization_id
),
created AS (
    INSERT INTO runs AS r (id, organization_id, metronome_id, user_id, version_id, trigger_type,
        input, idempotency_key, status, max_attempts, timeout_ms, attached_project_id,
        attached_ticket_id, due_at)
    SELECT :id, organization_id, id, :actor_user_id, version_id, :trigger_type,
        CAST(:input AS json), :idempotency_key, '{QUEUED}', :max_attempts, :timeout_ms,
        :attached_project_id, :attached_ticket_id, clock_timestamp()
    FROM wanted WHERE status <> '{ARCHIVED}' AND version_id IS NOT NULL
    ON CONFLICT (metronome_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING {_RUN}
),
audited AS (
    {_CREATED_EVENT}
)
SELECT w.status, w.version_id, {rows.columns(rows.RUN_FIELDS, "c")}
FROM wanted w LEFT JOIN created c ON true
""")


def create(connection: Connection, actor: Actor, new: NewRun) -> Created | None:
    """Queue a run, in one statement; None where there is no such workflow."""
    values: dict[str, Any] = {name: getattr(new, name) for name in new.__slots__}
    values["organization_id"] = actor.organization_id
    row = connection.execute(_CREATE, values | events.parameters(actor)).one_or_none()
    if row is None:
        return None
    return Created(row[0], row[1], rows.run(row[2:]) if row[2] is not None else None)


_BY_IDEMPOTENCY_KEY = text(f"""
SELECT {_RUN} FROM runs r
WHERE r.metronome_id = :metronome_id AND r.idempotency_key = :idempotency_key
  AND r.organization_id = :organization_id
""")


def with_idempotency_key(
    connection: Connection, organization_id: str, metronome_id: str, idempotency_key: str
) -> Run | None:
    """The run that was created with this key.

    Not a part of ``create``: a run that is being committed while that statement waits for it is not
    in its snapshot.
    """
    row = connection.execute(
        _BY_IDEMPOTENCY_KEY,
        {
            "metronome_id": metronome_id,
            "organization_id": organization_id,
            "idempotency_key": idempotency_key,
        },
    ).one_or_none()
    return None if row is None else rows.run(row)


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


_VIEW = text(f"""
SELECT {_RUN},
    (SELECT count(*) FROM runs c WHERE c.parent_run_id = r.id),
    (
        SELECT json_agg(json_build_array(s.seq, s.node_id, s.node_type, s.status, s.attempt,
            s.connector, s.started_at, s.wake_at, s.lease_token IS NULL,
            s.metadata ->> 'childRunId') ORDER BY s.seq)
        FROM steps s
        WHERE s.run_id = r.id AND s.status IN ({sql_list(OPEN_STEP)})
          AND (r.completed_at IS NULL OR r.lease_token IS NOT NULL)
    )
FROM runs r
WHERE r.id = :run_id AND r.metronome_id = :metronome_id AND r.organization_id = :organization_id
""")


def view(
    connection: Connection, organization_id: str, metronome_id: str, run_id: str
) -> RunView | None:
    """The run with what goes on in it just now, in one statement; None as for ``get``."""
    row = connection.execute(
        _VIEW,
        {"run_id": run_id, "metronome_id": metronome_id, "organization_id": organization_id},
    ).one_or_none()
    if row is None:
        return None
    children, steps = row[len(rows.RUN_FIELDS) :]
    return RunView(rows.run(row), tuple(_open_step(step) for step in steps or ()), children)


def _open_step(step: list[Any]) -> OpenStep:
    seq, node_id, node_type, status, attempt, connector, started, wakes, *rest = step
    started_at, wake_at = (
        None if moment is None else datetime.fromisoformat(moment) for moment in (started, wakes)
    )
    return OpenStep(seq, node_id, node_type, status, attempt, connector, started_at, wake_at, *rest)


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None and () mean any."""

    statuses: tuple[str, ...] = ()
    search: str | None = None
    project_id: str | None = None
    ticket_id: str | None = None
    parent_run_id: str | None = None


def page(
    connection: Connection,
    organization_id: str,
    metronome_id: str | None,
    wanted: RunFilter,
    *,
    limit: int,
    offset: int,
) -> list[Run]:
    """Up to ``limit`` runs, newest first, from the ``offset``-th on. Ids sort by time.

    They are of one workflow; without a ``metronome_id``, of all those of the organization.
    """
    query = (
        select(*_TABLE_RUN)
        .where(runs.c.organization_id == organization_id)
        .order_by(runs.c.id.desc())
        .limit(limit)
        .offset(offset)
    )
    if metronome_id is not None:
        query = query.where(runs.c.metronome_id == metronome_id)
    if wanted.parent_run_id is not None:
        query = query.where(runs.c.parent_run_id == wanted.parent_run_id)
    if wanted.statuses:
        query = query.where(runs.c.status.in_(wanted.statuses))
    if wanted.project_id is not None:
        query = query.where(runs.c.attached_project_id == wanted.project_id)
    if wanted.ticket_id is not None:
        query = query.where(runs.c.attached_ticket_id == wanted.ticket_id)
    if wanted.search:
        query = query.where(_matches(wanted.search))
    return [rows.run(row) for row in connection.execute(query)]


def _matches(search: str) -> ColumnElement[bool]:
    """Whether the text occurs in what a person would search a run by."""
    searched = (
        runs.c.id,
        runs.c.error,
        runs.c.idempotency_key,
        runs.c.trigger_type,
        runs.c.attached_project_id,
        runs.c.attached_ticket_id,
    )
    condition: ColumnElement[bool] = searched[0].icontains(search, autoescape=True)
    for column in searched[1:]:
        condition = condition | column.icontains(search, autoescape=True)
    return condition


_ATTACHED_EVENT = events.insert(
    "attached",
    "run.updated",
    metronome_id="metronome_id",
    run_id="id",
    version_id="version_id",
    payload="""json_build_object('attachedProjectId', attached_project_id,
        'attachedTicketId', attached_ticket_id)""",
)

_ATTACH = text(f"""
WITH attached AS (
    UPDATE runs r SET
        attached_project_id = CASE WHEN :set_project THEN :project_id ELSE attached_project_id END,
        attached_ticket_id = CASE WHEN :set_ticket THEN :ticket_id ELSE attached_ticket_id END,
        updated_at = clock_timestamp()
    WHERE r.id = :run_id AND r.metronome_id = :metronome_id
      AND r.organization_id = :organization_id
    RETURNING {_RUN}
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
