"""Who could own a workflow: the users that have keys in its organization."""

from __future__ import annotations

from sqlalchemy import Connection, text

from app.domain.models import OwnerCandidate, Page
from app.domain.roles import ROLES

# ROLES go from the one that may do least to the one that may do most.
_ROLES = f"ARRAY[{', '.join(repr(role) for role in ROLES)}]"

_CANDIDATES = text(f"""
SELECT k.user_id, ({_ROLES})[max(array_position({_ROLES}, k.role))], k.user_id = m.user_id
FROM metronomes m
JOIN api_keys k ON k.organization_id = m.organization_id AND k.revoked_at IS NULL
WHERE m.id = :metronome_id AND m.organization_id = :organization_id AND k.user_id > :after
GROUP BY k.user_id, m.user_id
ORDER BY k.user_id
LIMIT :limit OFFSET :offset
""")


def candidates(
    connection: Connection, organization_id: str, metronome_id: str, part: Page
) -> list[OwnerCandidate]:
    """A page of the users with a key that is not revoked, by id; none where the workflow is
    unknown. The role is the one of a user's keys that may do most. Their cursor is their id."""
    values = {
        "metronome_id": metronome_id,
        "organization_id": organization_id,
        "after": part.after or "",
        "limit": part.limit,
        "offset": part.offset,
    }
    return [OwnerCandidate(*row) for row in connection.execute(_CANDIDATES, values)]
