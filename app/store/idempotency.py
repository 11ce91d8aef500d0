"""The idempotency_keys table: which id was set apart for what a request creates."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from app.db import RawConnection

KEPT: Final = "interval '24 hours'"  # how long a key is remembered

_NAMES = ("fingerprint", "resource_id", "created_at")
# One that is too old stands for nothing any more, whether it has been purged or not.
_KEPT_OR_NEW = ",\n    ".join(
    f"{name} = CASE WHEN k.created_at < excluded.created_at - {KEPT}"
    f" THEN excluded.{name} ELSE k.{name} END"
    for name in _NAMES
)

# Where the key is known, the update makes the row that is there come back; it waits for one that is
# just being committed.
_RESERVE = text(f"""
INSERT INTO idempotency_keys AS k (organization_id, scope, key, fingerprint, resource_id)
VALUES (:organization_id, :scope, :key, :fingerprint, :resource_id)
ON CONFLICT (organization_id, scope, key) DO UPDATE SET
    {_KEPT_OR_NEW}
RETURNING resource_id, fingerprint
""")


def reserve(
    connection: Connection,
    organization_id: str,
    scope: str,
    key: str,
    *,
    fingerprint: bytes,
    resource_id: str,
) -> tuple[str, bytes]:
    """Set ``resource_id`` apart for ``key``; the id and the fingerprint of whoever came first.

    ``scope`` says what is created and where, such as ``versions:met_1``; ``fingerprint`` is a
    digest of the request.
    """
    row = connection.execute(
        _RESERVE,
        {
            "organization_id": organization_id,
            "scope": scope,
            "key": key,
            "fingerprint": fingerprint,
            "resource_id": resource_id,
        },
    ).one()
    return row[0], bytes(row[1])


# A few at a time, so that it locks little and is done soon; the index on the age finds them.
_PURGE = f"""
DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency_keys WHERE created_at < now() - {KEPT}
    ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED
))
"""


def purge(connection: RawConnection, limit: int) -> int:
    """Forget up to ``limit`` keys that are too old; how many they were."""
    with connection.cursor() as cursor:
        cursor.execute(_PURGE, (limit,))
        return cursor.rowcount
