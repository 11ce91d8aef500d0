"""Requests that create something, sent twice: the second one creates nothing.

First an id is set apart for the request's key, the same for each repetition. Then the thing is
created with that id, which happens once. So a crash between the two is harmless: the request, sent
again, goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from app.domain.errors import Invalid
from app.domain.models import Actor
from app.store import idempotency

REUSED: Final = "idempotency_key_reused"


def reserve(
    connection: Connection,
    actor: Actor,
    scope: str,
    key: str | None,
    *,
    new_id: str,
    request: Mapping[str, Any],
) -> str:
    """The id with which the thing is to be created: ``new_id``, or what ``key`` stands for.

    ``scope`` says what is created and where, such as ``versions:met_1``. ``request`` is all that
    the caller wants of the thing, as JSON values that were checked. Create with ``ON CONFLICT (id)
    DO NOTHING``; where that inserts nothing, the thing is there, and the answer is what it is now.
    Raises Invalid where another request had the same key within the last 24 hours.
    """
    if key is None:
        return new_id
    fingerprint = sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).digest()
    resource_id, earlier = idempotency.reserve(
        connection,
        actor.organization_id,
        scope,
        key,
        fingerprint=fingerprint,
        resource_id=new_id,
    )
    if earlier != fingerprint:
        told = "was used before, with another request"
        raise Invalid(
            f"the idempotency key {told}", code=REUSED, details={"idempotencyKey": [told]}
        )
    return resource_id
