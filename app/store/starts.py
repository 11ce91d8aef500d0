"""Starting runs: one statement that looks at the workflow, queues the run and tells of it.

Where the workflow limits how many runs are at work, its row is locked first, so that the places in
a group are counted and given to one run after the other: see concurrency.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

from app.db import LOCK_TIMEOUT
from app.domain.lifecycle import QUEUED
from app.domain.models import Actor, NewEvent, Run
from app.store import concurrency, events, rows, trigger_events
from app.store.concurrency import REJECT, Policy
from app.store.metronomes import ARCHIVED
from app.store.prepared import Message
from app.store.triggers import ACTIVE

_RUN = rows.columns(rows.RUN_FIELDS, "r")
ARCHIVED_VERSION: Final = "archived"
MAX_AT_WORK: Final = 100  # runs that a refusal names


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a run is created with; ``input`` and ``entry_nodes`` (a list) are JSON text.

    Without ``version_id`` it is a run of the published version where ``published`` says so and
    there is one, else of the version that holds the workflow's draft. ``event`` started it;
    ``event_key`` keeps it from starting another one, with whatever ``idempotency_key`` it comes.
    ``waits`` lets it wait for a place even where the workflow would reject it. With
    ``while_published`` it is queued only while the workflow is active and has published just this
    version: whoever is just taking it back, or pausing it, comes before it or after it; and it is
    for the workflow's owner, whoever sent what started it.
    """

    id: str
    metronome_id: str
    version_id: str | None
    published: bool
    trigger_type: str
    entry_nodes: str | None
    input: str
    idempotency_key: str | None
    event_key: str | None
    max_attempts: int
    timeout_ms: int | None
    attached_project_id: str | None
    attached_ticket_id: str | None
    waits: bool
    while_published: bool
    event: NewEvent | None


@dataclass(frozen=True, slots=True)
class Grouped:
    """The group that a run was found to belong to: ``key`` is what the policy's expression gave."""

    key: str
    expression: str | None


@dataclass(frozen=True, slots=True)
class Created:
    """What asking for a run came to.

    ``run`` is the one that is queued now. Where it is None, the rest tells why, or the idempotency
    key is taken: ``version_id`` is None where there is no such version, or the draft has none yet;
    ``is_published`` says that the workflow is active and has published that version;
    with a ``policy`` the run has to be asked for with its group; ``at_work`` are the runs that have
    the places of that group, or the first hundred of them.
    """

    metronome_status: str
    version_id: str | None
    version_status: str | None
    is_published: bool
    policy: Policy | None
    at_work: tuple[str, ...]
    run: Run | None


_CREATED_EVENT = events.insert(
    "created",
    "run.created",
    metronome_id="metronome_id",
    run_id="id",
    version_id="version_id",
    payload="""json_strip_nulls(json_build_object('triggerType', trigger_type,
        'triggerEventId', trigger_event_id))""",
)

_ALL = "max_concurrent_runs IS NULL"
# The policy that the group was made from still holds, and there is room or somebody may wait.
_MATCHING = f"""max_concurrent_runs IS NOT NULL
      AND expression IS NOT DISTINCT FROM CAST(:expression AS text)
      AND (on_limit <> '{REJECT}' OR :waits OR (SELECT free FROM room))"""

# Those who wait have come first: a free place is theirs.
_ROOM = f"""
places AS MATERIALIZED (
    SELECT r.id FROM runs r WHERE {concurrency.OF_GROUP} AND {concurrency.HAS_PLACE}
    LIMIT (SELECT max_concurrent_runs FROM wanted)
),
line AS MATERIALIZED (
    SELECT r.id FROM runs r WHERE {concurrency.OF_GROUP} AND {concurrency.WAITS}
    LIMIT (SELECT max_concurrent_runs FROM wanted)
),
room AS MATERIALIZED (
    SELECT (SELECT count(*) FROM places) + (SELECT count(*) FROM line) < max_concurrent_runs AS free
    FROM wanted
),"""


# Only who is refused wants to know.
_AT_WORK = f"""CASE WHEN c.id IS NULL THEN
        ARRAY(SELECT id FROM places ORDER BY id LIMIT {MAX_AT_WORK}) END"""


def _statement(*, grouped: bool, event: bool, published: bool = False) -> str:
    # In a group the workflow's row is locked already.
    condition = "AND (NOT :while_published OR is_published)" if grouped else ""
    return f"""
WITH wanted AS MATERIALIZED (
    SELECT m.id, m.organization_id, m.user_id, m.status, m.max_concurrent_runs, m.on_limit,
        m.concurrency_key AS expression, v.id AS version_id, v.revision, v.status AS version_status,
        (m.status = '{ACTIVE}' AND m.published_version_id = v.id) IS TRUE AS is_published
    FROM metronomes m
    LEFT JOIN versions v ON v.metronome_id = m.id AND v.id = coalesce(:version_id,
        CASE WHEN :published THEN m.published_version_id END, m.draft_version_id)
    WHERE m.id = :metronome_id AND m.organization_id = :organization_id
    {"FOR SHARE OF m" if published else ""}
),{_ROOM if grouped else ""}
created AS (
    INSERT INTO runs AS r (id, organization_id, metronome_id, user_id, version_id,
        version_revision, trigger_type, trigger_event_id, entry_nodes, input, idempotency_key,
        event_key, status, max_attempts, timeout_ms, attached_project_id, attached_ticket_id,
        concurrency_key, admitted, due_at)
    SELECT :id, organization_id, id,
        CASE WHEN :while_published THEN user_id ELSE :actor_user_id END, version_id, revision,
        :trigger_type,
        {":trigger_event_id" if event else "NULL"}, CAST(:entry_nodes AS json),
        CAST(:input AS json), :idempotency_key, :event_key, '{QUEUED}', :max_attempts, :timeout_ms,
        :attached_project_id, :attached_ticket_id,
        {":group, (SELECT free FROM room)" if grouped else "NULL, true"}, clock_timestamp()
    FROM wanted
    WHERE status <> '{ARCHIVED}' AND version_status <> '{ARCHIVED_VERSION}'
      AND {_MATCHING if grouped else _ALL}
      {"AND is_published" if published else condition}
    ON CONFLICT DO NOTHING
    RETURNING {_RUN}
),
audited AS (
    {_CREATED_EVENT}
){f",{chr(10)}{trigger_events.recorded('created')}" if event else ""}
SELECT w.status, w.version_id, w.version_status, w.is_published, w.max_concurrent_runs,
    w.on_limit, w.expression,
    {_AT_WORK if grouped else "NULL"},
    {rows.columns(rows.RUN_FIELDS, "c")}
FROM wanted w LEFT JOIN created c ON true
"""


_TYPES = {
    "published": "bool",
    "waits": "bool",
    "while_published": "bool",
    "max_attempts": "int",
    "timeout_ms": "bigint",
}
_CREATE = {
    event: Message(_statement(grouped=False, event=event), **_TYPES) for event in (False, True)
}
_CREATE_PUBLISHED = Message(
    _statement(grouped=False, event=True, published=True), settings=LOCK_TIMEOUT, **_TYPES
)
MESSAGE = Message(
    concurrency.LOCK, _statement(grouped=True, event=True), settings=LOCK_TIMEOUT, **_TYPES
)
_COLUMNS = tuple(name for name in NewRun.__slots__ if name != "event")


def create(
    connection: Connection, actor: Actor, new: NewRun, group: Grouped | None = None
) -> Created | None:
    """Queue a run, with its audit event and what started it; None where there is no such workflow.

    In one statement; with a ``group`` in one message, which first waits for those who look for a
    place in the same workflow.
    """
    values: dict[str, Any] = {name: getattr(new, name) for name in _COLUMNS}
    values |= {"organization_id": actor.organization_id, **events.parameters(actor)}
    if group is not None:
        values |= {"group": group.key, "expression": group.expression}
        values |= trigger_events.parameters(new.event)
        row = MESSAGE.row(connection, values)
    else:
        if new.event is not None or new.while_published:
            values |= trigger_events.parameters(new.event)
        create = _CREATE_PUBLISHED if new.while_published else _CREATE[new.event is not None]
        row = create.row(connection, values)
    if row is None:
        return None
    status, version_id, version_status, is_published, most, on_limit, expression, at_work, *run = (
        row
    )
    return Created(
        metronome_status=status,
        version_id=version_id,
        version_status=version_status,
        is_published=is_published,
        policy=None if most is None else Policy(most, on_limit, expression),
        at_work=tuple(at_work or ()),
        run=None if run[0] is None else rows.run(run),
    )


_BY_KEY = text(f"""
SELECT {_RUN} FROM runs r
WHERE r.organization_id = :organization_id AND r.id = coalesce(
    (SELECT id FROM runs
        WHERE metronome_id = :metronome_id AND idempotency_key = :idempotency_key),
    (SELECT id FROM runs WHERE metronome_id = :metronome_id AND event_key = :event_key))
""")


def with_idempotency_key(
    connection: Connection,
    organization_id: str,
    metronome_id: str,
    idempotency_key: str,
    event_key: str | None = None,
) -> Run | None:
    """The run that was created with this key, else the one that the event of that key started.

    Not a part of ``create``: a run that is being committed while that statement waits for it is not
    in its snapshot.
    """
    row = connection.execute(
        _BY_KEY,
        {
            "metronome_id": metronome_id,
            "organization_id": organization_id,
            "idempotency_key": idempotency_key,
            "event_key": event_key,
        },
    ).one_or_none()
    return None if row is None else rows.run(row)
