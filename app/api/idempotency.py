"""Idempotency keys of requests that create something: the header, or the body's field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from flask import request

from app.domain.errors import Invalid

HEADER: Final = "Idempotency-Key"
REPLAY: Final = "Idempotent-Replay"
MAX_KEY: Final = 255

# For the documentation: what a request may send, and what an answer says.
IDEMPOTENCY_KEY: Final[Mapping[str, Any]] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Sent again with the same key, the request creates nothing new. The same as the"
    " body's idempotencyKey.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[!-~]+$"},
}
HEADERS: Final[Mapping[str, Any]] = {
    "Location": {
        "description": "The path of what was created; only where this request did it.",
        "schema": {"type": "string"},
    },
    REPLAY: {
        "description": "`true` where the key was used before: the answer shows what is there.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}

_KEY = re.compile(rf"[!-~]{{1,{MAX_KEY}}}")


def key(in_body: str | None) -> str | None:
    """The request's idempotency key: ``in_body``, or that of the header; None where it has none.

    Raises Invalid where the two differ, or where the header holds no key.
    """
    given = request.headers.get(HEADER)
    if given is None:
        return in_body
    given = given.strip()
    if not _KEY.fullmatch(given):
        told = f"must be 1 to {MAX_KEY} visible ASCII characters"
    elif in_body is not None and in_body != given:
        told = "is another key than the body's idempotencyKey"
    else:
        return given
    raise Invalid(f"{HEADER}: {told}", details={HEADER: [told]})


def headers(created: bool, metronome_id: str, *below: str) -> dict[str, str]:
    """The headers of the answer, which tell whether anything was created by this request.

    And where it is: the workflow, or what is ``below`` it, as in ``"runs", run.id``.
    """
    path = "/".join(("/v1/metronomes", metronome_id, *below))
    return {"Location": path} if created else {REPLAY: "true"}
