"""API keys. Only the SHA-256 of a secret is stored: it has too many bits to be guessed.

Keys are made and revoked on the database itself, by no key; ``by`` tells the audit who did.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from app.domain.models import Actor, ApiKey
from app.store import events, rows
from app.store.prepared import Message

_KEY = rows.columns(rows.KEY_FIELDS, "k")


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is created with; ``sha256`` is of the secret, ``prefix`` its first characters."""

    id: str
    name: str
    prefix: str
    sha256: bytes
    user_id: str
    organization_id: str
    role: str = "admin"


def _audited(changed: str, action: str) -> str:
    return events.insert(
        changed,
        action,
        metronome_id="NULL",
        payload="""json_build_object('keyId', id, 'name', name, 'prefix', prefix, 'role', role,
            'userId', user_id)""",
    )


_INSERT = text(f"""
WITH created AS (
    INSERT INTO api_keys AS k (id, name, prefix, sha256, user_id, organization_id, role)
    VALUES (:id, :name, :prefix, :sha256, :user_id, :organization_id, :role)
    ON CONFLICT (sha256) DO NOTHING
    RETURNING {_KEY}
),
audited AS (
    {_audited("created", "key.created")}
)
SELECT * FROM created
""")


def create(connection: Connection, new: NewKey, *, by: str) -> ApiKey | None:
    """Store a key; None where its secret is stored already, revoked or not."""
    values = {name: getattr(new, name) for name in new.__slots__}
    row = connection.execute(_INSERT, values | _actor(by)).one_or_none()
    return None if row is None else rows.key(row)


_ACTOR = Message(
    """
SELECT id, user_id, organization_id, role FROM api_keys
WHERE sha256 = :sha256 AND (revoked_at IS NULL) IS TRUE
""",
    sha256="bytea",
)


def find_actor(connection: Connection, sha256: bytes) -> Actor | None:
    """Whom the key with this hash stands for; None where it is unknown or revoked."""
    row = _ACTOR.row(connection, {"sha256": sha256})
    return None if row is None else Actor(*row)


_LIST = text(f"SELECT {_KEY} FROM api_keys k ORDER BY k.id")


def every(connection: Connection) -> list[ApiKey]:
    """All keys, the oldest first, revoked ones as well."""
    return [rows.key(row) for row in connection.execute(_LIST)]


# A second revocation leaves the time of the first, and no event. ``before`` has the row as it is
# once nobody else holds it, so that of two at once one is the first.
_REVOKE = text(f"""
WITH revoked AS (
    UPDATE api_keys k SET revoked_at = coalesce(k.revoked_at, clock_timestamp())
    FROM (SELECT id, revoked_at FROM api_keys WHERE id = :id FOR UPDATE) before
    WHERE k.id = before.id
    RETURNING {_KEY}, before.revoked_at IS NULL AS is_new
),
audited AS (
    {_audited("(SELECT * FROM revoked WHERE is_new) r", "key.revoked")}
)
SELECT * FROM revoked
""")


def revoke(connection: Connection, key_id: str, *, by: str) -> ApiKey | None:
    """Revoke a key from now on; None where there is no such key."""
    row = connection.execute(_REVOKE, {"id": key_id} | _actor(by)).one_or_none()
    return None if row is None else rows.key(row)


def _actor(by: str) -> dict[str, str]:
    return events.parameters(Actor(key_id=by, user_id=by, organization_id=""))
