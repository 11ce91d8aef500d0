"""The metronomes table: workflows and their drafts. Lists of them are in metronome_list.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, text

from app.domain.models import Actor, Metronome
from app.store import events, rows, triggers

ARCHIVED: Final = "archived"
DRAFT: Final = "draft"
PAUSED: Final = "paused"

# All but the published version's number stands in the table itself.
_OWN = tuple(name for name in rows.METRONOME_FIELDS if name != "published_version_number")
_SHOWN = ", ".join(
    "v.version" if name == "published_version_number" else f"m.{name}"
    for name in rows.METRONOME_FIELDS
)


def _answer(source: str) -> str:
    """The row of ``source`` in the order of METRONOME_FIELDS."""
    return f"SELECT {_SHOWN} FROM {source} m LEFT JOIN versions v ON v.id = m.published_version_id"


@dataclass(frozen=True, slots=True)
class NewMetronome:
    """What a workflow is created with; ``definition`` is JSON text."""

    id: str
    name: str
    description: str | None
    status: str
    definition: str
    trigger_summary: str | None
    max_concurrent_runs: int | None = None
    on_limit: str = "queue"
    concurrency_key: str | None = None


def _digest(table: str) -> str:
    """What is told of a definition, which may be long: its size and its digest."""
    document = f"CAST({table}.definition AS text)"
    return f"""json_build_object('bytes', octet_length({document}),
            'sha256', encode(sha256(convert_to({document}, 'UTF8')), 'hex'))"""


_CREATED_EVENT = events.insert(
    "created",
    "metronome.created",
    metronome_id="id",
    payload=f"""json_build_object('name', name, 'status', status,
        'definition', {_digest("created")})""",
)
_CREATE = text(f"""
WITH created AS (
    INSERT INTO metronomes (id, organization_id, user_id, name, description, status, definition,
        trigger_summary, max_concurrent_runs, on_limit, concurrency_key)
    VALUES (:id, :organization_id, :user_id, :name, :description, :status,
        CAST(:definition AS json), :trigger_summary, :max_concurrent_runs, :on_limit,
        :concurrency_key)
    ON CONFLICT (id) DO NOTHING
    RETURNING {", ".join(_OWN)}
),
audited AS (
    {_CREATED_EVENT}
)
{_answer("created")}
""")


def create(connection: Connection, actor: Actor, new: NewMetronome) -> Metronome | None:
    """Store a workflow that belongs to ``actor``; None where there is one with this id."""
    values: dict[str, Any] = {name: getattr(new, name) for name in new.__slots__}
    values |= {"organization_id": actor.organization_id, "user_id": actor.user_id}
    row = connection.execute(_CREATE, values | events.parameters(actor)).one_or_none()
    return None if row is None else rows.metronome(row)


_GET = text(_answer("metronomes") + " WHERE m.id = :id AND m.organization_id = :organization_id")


def get(connection: Connection, organization_id: str, metronome_id: str) -> Metronome | None:
    """The workflow, archived or not; None where it is unknown or another organization's."""
    row = connection.execute(
        _GET, {"id": metronome_id, "organization_id": organization_id}
    ).one_or_none()
    return None if row is None else rows.metronome(row)


# What can be changed, with its type in SQL.
_TYPES: Final[Mapping[str, str]] = {
    "user_id": "text",
    "name": "text",
    "description": "text",
    "status": "text",
    "definition": "json",
    "trigger_summary": "text",
    "max_concurrent_runs": "integer",
    "on_limit": "text",
    "concurrency_key": "text",
}
# Clients that save a workflow send "draft" with it. What is published stays active or paused then:
# only who unpublishes it makes it a draft.
_GIVEN: Final[Mapping[str, str]] = {
    "status": f"""CASE
            WHEN :status <> '{DRAFT}' OR b.published_version_id IS NULL THEN :status
            WHEN b.status = '{ARCHIVED}' THEN '{PAUSED}' ELSE b.status END"""
}
_WANTED = ",\n        ".join(
    f"CASE WHEN :set_{name} THEN {_GIVEN.get(name, f'CAST(:{name} AS {kind})')}"
    f" ELSE b.{name} END AS {name}"
    for name, kind in _TYPES.items()
)
_SET = ", ".join(f"{name} = w.{name}" for name in _TYPES)


def _audited(table: str) -> str:
    """What is compared of a workflow, and told by an audit event: of a definition only a digest."""
    return f"""json_build_object('userId', {table}.user_id, 'name', {table}.name,
        'description', {table}.description, 'status', {table}.status,
        'triggerSummary', {table}.trigger_summary,
        'definition', {_digest(table)},
        'concurrency', CASE WHEN {table}.max_concurrent_runs IS NOT NULL THEN json_build_object(
            'maxConcurrentRuns', {table}.max_concurrent_runs, 'onLimit', {table}.on_limit,
            'key', {table}.concurrency_key) END)"""


_PAYLOAD = """(
        SELECT json_build_object('changed', json_agg(key ORDER BY key),
            'before', json_object_agg(key, before), 'after', json_object_agg(key, after))
        FROM changes
    )"""


def _change(action: str) -> str:
    """SQL that changes a workflow and writes the audit event ``action``, where that is a change.

    The first statement locks, so that the second one sees what was committed during the wait. A new
    definition has no version until it is run.
    """
    return f"""
{triggers.LOCK};
WITH before AS (
    SELECT m.*, CASE
        WHEN NOT (:any_revision OR m.revision = ANY (CAST(:expected AS bigint[])))
            THEN 'precondition'
        WHEN :set_user_id AND NOT EXISTS (
            SELECT FROM api_keys k WHERE k.organization_id = m.organization_id
                AND k.user_id = :user_id AND k.revoked_at IS NULL)
            THEN 'owner'
        WHEN :resumes AND m.published_version_id
            IS DISTINCT FROM CAST(:trigger_version_id AS text)
            THEN 'stale'
        END AS refused
    FROM metronomes m
    WHERE m.id = :metronome_id AND m.organization_id = :organization_id
),
wanted AS (
    SELECT b.id, {_WANTED}
    FROM before b WHERE b.refused IS NULL
),
changes AS (
    SELECT n.key, o.value AS before, n.value AS after
    FROM wanted w, before b, json_each({_audited("w")}) n, json_each({_audited("b")}) o
    WHERE n.key = o.key AND CAST(n.value AS text) <> CAST(o.value AS text)
),
updated AS (
    UPDATE metronomes m SET {_SET}, revision = m.revision + 1, updated_at = clock_timestamp(),
        draft_version_id = CASE
            WHEN NOT EXISTS (SELECT FROM changes WHERE key = 'definition') THEN m.draft_version_id
        END
    FROM wanted w
    WHERE m.id = w.id AND EXISTS (SELECT FROM changes)
    RETURNING {rows.columns(_OWN, "m")}
),
audited AS (
    {events.insert("updated", action, metronome_id="id", payload=_PAYLOAD)}
),
followed AS (
    {triggers.follows("updated")}
),
now AS (
    SELECT {rows.columns(_OWN, "u")} FROM updated u
    UNION ALL
    SELECT {rows.columns(_OWN, "b")} FROM before b WHERE NOT EXISTS (SELECT FROM updated)
)
SELECT b.refused, ARRAY(SELECT key FROM changes), answer.*
FROM before b, ({_answer("now")}) answer
"""


_UPDATE = text(_change("metronome.updated"))
_ARCHIVE = text(_change("metronome.archived"))
_TRANSFER = text(_change("metronome.owner_changed"))


@dataclass(frozen=True, slots=True)
class Update:
    """What asking for a change came to; ``metronome`` is the workflow as it is now.

    ``changed`` holds the contract's names of what is different now. Where ``refused`` says
    something, nothing is: the revision is none of those that were expected, the new owner has no
    key in the organization, or another version was published since ``triggers.published``.
    """

    refused: Literal["precondition", "owner", "stale"] | None
    changed: frozenset[str]
    metronome: Metronome


# Of what is published, where that does not matter.
_NO_TRIGGERS: Final = triggers.parameters(None, ())


def update(
    connection: Connection,
    actor: Actor,
    metronome_id: str,
    changes: Mapping[str, Any],
    *,
    expected: tuple[int, ...] | None = None,
    resumed: Mapping[str, Any] | None = None,
) -> Update | None:
    """Change columns of a workflow: those of NewMetronome but its id, as far as ``changes`` has
    them. None where the workflow is unknown or another organization's.

    A workflow that has published something does not become a draft. A new status of "active" needs
    ``resumed``: ``triggers.parameters`` of what is published.
    ``expected`` holds the revisions of which the workflow must have one; None: any.
    """
    return _send(connection, _UPDATE, actor, metronome_id, changes, expected, resumed)


def archive(
    connection: Connection,
    actor: Actor,
    metronome_id: str,
    *,
    expected: tuple[int, ...] | None = None,
) -> Update | None:
    """Archive a workflow; one that is archived stays as it is. None as in ``update``."""
    status = {"status": ARCHIVED}
    return _send(connection, _ARCHIVE, actor, metronome_id, status, expected, None)


def transfer(
    connection: Connection,
    actor: Actor,
    metronome_id: str,
    user_id: str,
    *,
    expected: tuple[int, ...] | None = None,
) -> Update | None:
    """Give a workflow, and what its triggers start from now on, to another user. None as in
    ``update``."""
    owner = {"user_id": user_id}
    return _send(connection, _TRANSFER, actor, metronome_id, owner, expected, None)


def _send(
    connection: Connection,
    statement: Any,
    actor: Actor,
    metronome_id: str,
    changes: Mapping[str, Any],
    expected: tuple[int, ...] | None,
    resumed: Mapping[str, Any] | None,
) -> Update | None:
    values: dict[str, Any] = {
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "any_revision": expected is None,
        "expected": list(expected or ()),
        "resumes": resumed is not None,
    }
    for name in _TYPES:
        values[f"set_{name}"] = name in changes
        values[name] = changes.get(name)
    values |= _NO_TRIGGERS if resumed is None else resumed
    row = connection.execute(statement, values | events.parameters(actor)).one_or_none()
    return None if row is None else Update(row[0], frozenset(row[1]), rows.metronome(row[2:]))
