"""API keys. Only the SHA-256 of a secret is stored: it has too many bits to be guessed."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from app.domain.models import Actor, ApiKey
from app.store import rows

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


_INSERT = text(f"""
INSERT INTO api_keys AS k (id, name, prefix, sha256, user_id, organization_id)
VALUES (:id, :name, :prefix, :sha256, :user_id, :organization_id)
ON CONFLICT (sha256) DO NOTHING
RETURNING {_KEY}
""")


def create(connection: Connection, new: NewKey) -> ApiKey | None:
    """Store a key; None where its secret is stored already, revoked or not."""
    values = {name: getattr(new, name) for name in new.__slots__}
    row = connection.execute(_INSERT, values).one_or_none()
    return None if row is None else rows.key(row)


_ACTOR = text("""
SELECT id, user_id, organization_id FROM api_keys WHERE sha256 = :sha256 AND revoked_at IS NULL
""")


def find_actor(connection: Connection, sha256: bytes) -> Actor | None:
    """Whom the key with this hash stands for; None where it is unknown or revoked."""
    row = connection.execute(_ACTOR, {"sha256": sha256}).one_or_none()
    return None if row is None else Actor(*row)


_LIST = text(f"SELECT {_KEY} FROM api_keys k ORDER BY k.id")


def every(connection: Connection) -> list[ApiKey]:
    """All keys, the oldest first, revoked ones as well."""
    return [rows.key(row) for row in connection.execute(_LIST)]


# A second revocation leaves the time of the first.
_REVOKE = text(f"""
UPDATE api_keys k SET revoked_at = coalesce(k.revoked_at, clock_timestamp())
WHERE k.id = :id
RETURNING {_KEY}
""")


def revoke(connection: Connection, key_id: str) -> ApiKey | None:
    """Revoke a key from now on; None where there is no such key."""
    row = connection.execute(_REVOKE, {"id": key_id}).one_or_none()
    return None if row is None else rows.key(row)
