"""Which version of a workflow is published, and the history of that.

Each function here is a part of a transaction that began with ``lock``: whoever publishes reads,
checks and writes while nobody else changes the workflow.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

from app.domain.lifecycle import sql_list
from app.domain.models import Actor, Deployment, Metronome, Page, Version
from app.store import events, metronomes, triggers
from app.store.schema import DEPLOYMENTS
from app.store.versions import LOCK, PUBLISHED, SAVED

ACTIVE = "active"
DRAFT = "draft"

_LOCK = text(LOCK)
_SYNC = ";\n".join(triggers.SYNC)


def lock(connection: Connection, organization_id: str, metronome_id: str) -> Metronome | None:
    """The workflow, whose row is locked from now on; None where there is none."""
    values = {"metronome_id": metronome_id, "organization_id": organization_id}
    if connection.execute(_LOCK, values).one_or_none() is None:
        return None
    return metronomes.get(connection, organization_id, metronome_id)


_BEFORE = """json_build_object('status', old_status, 'versionId', old_version_id,
            'version', old_version, 'versionRevision', old_revision)"""
# Of the version that is published, if one is.
_OLD = """m.status AS old_status, m.published_version_id AS old_version_id,
        v.version AS old_version, v.revision AS old_revision
    FROM metronomes m LEFT JOIN versions v ON v.id = m.published_version_id
    WHERE m.id = :metronome_id"""
_PUBLISHED_EVENT = events.insert(
    "published",
    "version.published",
    metronome_id="metronome_id",
    version_id="version_id",
    payload=f"""json_build_object('version', version, 'versionRevision', revision,
        'description', description, 'before', {_BEFORE},
        'after', json_build_object('status', '{ACTIVE}', 'versionId', version_id,
            'version', version, 'versionRevision', revision))""",
)
_UNPUBLISHED_EVENT = events.insert(
    "before",
    "metronome.unpublished",
    metronome_id="id",
    version_id="old_version_id",
    payload=f"""json_build_object('version', old_version, 'versionRevision', old_revision,
        'description', CAST(:description AS text),
        'before', {_BEFORE},
        'after', json_build_object('status', '{DRAFT}', 'versionId', NULL, 'version', NULL,
            'versionRevision', NULL))""",
)

# Two statements: of a workflow's versions one at the most is published, at any moment.
_PUBLISH = text(f"""
UPDATE versions SET status = '{SAVED}', updated_at = clock_timestamp()
WHERE metronome_id = :metronome_id AND status = '{PUBLISHED}' AND id <> :version_id;

WITH before AS (
    SELECT {_OLD}
),
promoted AS (
    UPDATE versions SET status = '{PUBLISHED}', published_at = clock_timestamp(),
        updated_at = clock_timestamp()
    WHERE id = :version_id AND metronome_id = :metronome_id
    RETURNING id, version, revision, description
),
changed AS (
    UPDATE metronomes m SET status = '{ACTIVE}', published_version_id = p.id,
        revision = m.revision + 1, updated_at = clock_timestamp()
    FROM promoted p WHERE m.id = :metronome_id
    RETURNING m.id, m.organization_id, m.user_id
),
published AS (
    SELECT c.id AS metronome_id, c.organization_id, c.user_id, p.id AS version_id, p.version,
        p.revision, p.description, b.*
    FROM changed c, promoted p, before b
)
{_PUBLISHED_EVENT};
{_SYNC}
""")


def publish(
    connection: Connection, actor: Actor, version: Version, listens: Mapping[str, str | None]
) -> None:
    """Make ``version`` the published one of its workflow, which becomes active.

    ``listens`` are ``triggers.parameters`` of the version.
    """
    values = {
        "metronome_id": version.metronome_id,
        "organization_id": actor.organization_id,
        "version_id": version.id,
    }
    connection.execute(_PUBLISH, {**values, **events.parameters(actor), **listens})


_UNPUBLISH = text(f"""
WITH before AS (
    SELECT m.id, m.organization_id, m.user_id, {_OLD}
),
demoted AS (
    UPDATE versions SET status = '{SAVED}', updated_at = clock_timestamp()
    WHERE metronome_id = :metronome_id AND status = '{PUBLISHED}'
),
changed AS (
    UPDATE metronomes m SET status = '{DRAFT}', published_version_id = NULL,
        revision = m.revision + 1, updated_at = clock_timestamp()
    FROM before b WHERE m.id = b.id
)
{_UNPUBLISHED_EVENT};
{_SYNC}
""")


def unpublish(
    connection: Connection, actor: Actor, metronome_id: str, description: str | None
) -> None:
    """Take back what is published; the workflow becomes a draft. ``description`` says why."""
    values = {
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "description": description,
    }
    nothing = triggers.parameters(None, ())
    connection.execute(_UNPUBLISH, {**values, **events.parameters(actor), **nothing})


# An unpublish of what was not published is in the audit, but no deployment.
_DEPLOYMENTS = text(f"""
SELECT e.id, e.metronome_id, e.version_id, CAST(e.payload->>'version' AS int),
    CAST(e.payload->>'versionRevision' AS int),
    CASE e.action WHEN 'version.published' THEN 'published' ELSE 'unpublished' END,
    e.payload->>'description', e.actor_user_id, e.created_at
FROM audit_events e
WHERE e.metronome_id = :metronome_id AND e.organization_id = :organization_id
  AND e.action IN ({sql_list(DEPLOYMENTS)}) AND e.version_id IS NOT NULL
  AND (:after IS NULL OR e.id < :after)
ORDER BY e.id DESC LIMIT :limit OFFSET :offset
""")


def deployments(
    connection: Connection, organization_id: str, metronome_id: str, page: Page
) -> list[Deployment]:
    """What was published and unpublished of a workflow, newest first."""
    values = {
        "metronome_id": metronome_id,
        "organization_id": organization_id,
        "limit": page.limit,
        "offset": page.offset,
        "after": page.after,
    }
    return [Deployment(*row) for row in connection.execute(_DEPLOYMENTS, values)]
