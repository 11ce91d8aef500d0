"""The secrets with which senders of webhooks sign what they send, or name themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from app.domain.models import Actor
from app.store import events

REFUSALS_A_MINUTE = 60  # of a webhook that are recorded; the others only are refused


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """What a webhook is created with; ``sha256`` is of the secret."""

    id: str
    organization_id: str
    user_id: str
    name: str
    secret: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as it is listed, without its secret."""

    id: str
    organization_id: str
    user_id: str  # who made it
    name: str
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Secret:
    """What a delivery is compared with, and whose it then is."""

    webhook_id: str
    organization_id: str
    secret: str


_COLUMNS = "w.id, w.organization_id, w.user_id, w.name, w.created_at, w.revoked_at"


def _audited(changed: str, action: str) -> str:
    payload = "json_build_object('webhookId', id, 'name', name)"
    return events.insert(changed, action, metronome_id="NULL", payload=payload)


_INSERT = text(f"""
WITH created AS (
    INSERT INTO webhooks AS w (id, organization_id, user_id, name, secret, sha256)
    VALUES (:id, :organization_id, :user_id, :name, :secret, :sha256)
    ON CONFLICT (sha256) DO NOTHING
    RETURNING {_COLUMNS}
),
audited AS (
    {_audited("created", "webhook.created")}
)
SELECT * FROM created
""")


def create(connection: Connection, new: NewWebhook, *, by: str) -> Webhook | None:
    """Store a webhook; None where its secret is that of another one, revoked or not."""
    values = {name: getattr(new, name) for name in new.__slots__}
    row = connection.execute(_INSERT, values | _actor(by)).one_or_none()
    return None if row is None else Webhook(*row)


_LIST = text(f"""
SELECT {_COLUMNS} FROM webhooks w
WHERE CAST(:organization_id AS text) IS NULL OR w.organization_id = :organization_id
ORDER BY w.id
""")


def every(connection: Connection, organization_id: str | None) -> list[Webhook]:
    """All webhooks (of an organization), the oldest first, revoked ones as well."""
    found = connection.execute(_LIST, {"organization_id": organization_id})
    return [Webhook(*row) for row in found]


# A second revocation leaves the time of the first, and no event.
_REVOKE = text(f"""
WITH revoked AS (
    UPDATE webhooks w SET revoked_at = coalesce(w.revoked_at, clock_timestamp())
    FROM (SELECT id, revoked_at FROM webhooks WHERE id = :id FOR UPDATE) before
    WHERE w.id = before.id
    RETURNING {_COLUMNS}, before.revoked_at IS NULL AS is_new
),
audited AS (
    {_audited("(SELECT * FROM revoked WHERE is_new) r", "webhook.revoked")}
)
SELECT * FROM revoked
""")


def revoke(connection: Connection, webhook_id: str, *, by: str) -> Webhook | None:
    """Revoke a webhook from now on; None where there is no such one."""
    row = connection.execute(_REVOKE, {"id": webhook_id} | _actor(by)).one_or_none()
    return None if row is None else Webhook(*row[:-1])


_FOUND = "SELECT w.id, w.organization_id, w.secret FROM webhooks w WHERE w.revoked_at IS NULL"

_BY_ID = text(f"{_FOUND} AND w.id = :id")
_BY_HASH = text(f"{_FOUND} AND w.sha256 = :sha256")
_ACTIVE = text(f"{_FOUND} ORDER BY coalesce(w.used_at, w.created_at) DESC, w.id LIMIT :limit")


def by_id(connection: Connection, webhook_id: str) -> Secret | None:
    """The secret of a webhook; None where it is unknown or revoked."""
    row = connection.execute(_BY_ID, {"id": webhook_id}).one_or_none()
    return None if row is None else Secret(*row)


def by_sha256(connection: Connection, sha256: bytes) -> Secret | None:
    """The secret with this hash; None where there is none, or it was revoked."""
    row = connection.execute(_BY_HASH, {"sha256": sha256}).one_or_none()
    return None if row is None else Secret(*row)


def active(connection: Connection, *, limit: int) -> list[Secret]:
    """The secrets of all organizations, ``limit`` at the most: first those that were used last, or
    made."""
    return [Secret(*row) for row in connection.execute(_ACTIVE, {"limit": limit})]


# Once a minute is enough to have them in order.
_USED = text("""
UPDATE webhooks SET used_at = date_trunc('minute', clock_timestamp())
WHERE id = :id AND used_at IS DISTINCT FROM date_trunc('minute', clock_timestamp())
""")


def used(connection: Connection, webhook_id: str) -> None:
    """Note that a delivery was signed with this secret, and did not name it."""
    connection.execute(_USED, {"id": webhook_id})


# Counted in the row, so that a flood of wrong deliveries costs a look-up each, and no more.
_REFUSED = text(f"""
UPDATE webhooks SET
    refused_count = CASE WHEN refused_at = date_trunc('minute', clock_timestamp())
        THEN refused_count + 1 ELSE 1 END,
    refused_at = date_trunc('minute', clock_timestamp())
WHERE id = :id
  AND (refused_at IS DISTINCT FROM date_trunc('minute', clock_timestamp())
    OR refused_count < {REFUSALS_A_MINUTE})
RETURNING organization_id
""")


def count_refusal(connection: Connection, webhook_id: str) -> str | None:
    """Count a delivery that was refused; whose webhook it was for, or None where it is unknown, or
    so many were refused within this minute that this one is not to be recorded."""
    found: str | None = connection.execute(_REFUSED, {"id": webhook_id}).scalar_one_or_none()
    return found


def _actor(by: str) -> dict[str, str]:
    return events.parameters(Actor(key_id=by, user_id=by, organization_id=""))
