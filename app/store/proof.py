"""What is sent for an actor whose key nobody has looked at: the key is proven on the way.

To look a key up costs a round trip, which for a cancel is a third of its time. So a process may
remember whom a key stands for, which never changes. But a revoked key has to stop at once: where
the actor is only remembered, the first statement of the message looks whether the key is still
valid, and fails where it is not. Then all of the message fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg2.errors import DivisionByZero
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.domain.errors import KeyUnproven
from app.domain.models import Actor
from app.store.prepared import Message

# There is no other way to fail in plain SQL. No statement of ours divides.
_PROOF = """
SELECT 1 / (
    SELECT count(*) FROM api_keys k
    WHERE k.id = :proven_key_id AND (k.revoked_at IS NULL AND k.role = :proven_role
        AND k.user_id = :proven_user_id AND k.organization_id = :proven_organization_id) IS TRUE
)"""


class ActorMessage:
    """A Message that proves the key of an actor who is only remembered."""

    def __init__(self, *statements: str, **types: str) -> None:
        self.plain = Message(*statements, **types)
        self.proving = Message(_PROOF, *statements, **types)

    def row(
        self, connection: Connection, actor: Actor, values: Mapping[str, Any]
    ) -> Sequence[Any] | None:
        """As ``Message.row``. Raises KeyUnproven."""
        if not actor.remembered:
            return self.plain.row(connection, values)
        with _Proving():
            return self.proving.row(connection, {**values, **proven(actor)})

    def rows(
        self, connection: Connection, actor: Actor, values: Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        """As ``Message.rows``. Raises KeyUnproven."""
        if not actor.remembered:
            return self.plain.rows(connection, values)
        with _Proving():
            return self.proving.rows(connection, {**values, **proven(actor)})


class _Proving:
    """Tells a key that is not valid any more from all else that a message may fail for."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, DBAPIError) and isinstance(error.orig, DivisionByZero):
            raise KeyUnproven from None


def proven(actor: Actor) -> dict[str, str]:
    """What the proof of an actor's key is sent with."""
    return {
        "proven_key_id": actor.key_id,
        "proven_role": actor.role,
        "proven_user_id": actor.user_id,
        "proven_organization_id": actor.organization_id,
    }
