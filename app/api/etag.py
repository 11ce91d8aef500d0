"""Entity tags: whoever changes a thing can demand that nobody else has changed it meanwhile.

The tag of a thing is the number of its changes, in quotes. The comparison itself is part of the
statement that makes the change, so that nothing comes in between.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from flask import Response, request

HEADER: Final = "ETag"

# Request headers and answer headers for the documentation.
IF_MATCH: Final[Mapping[str, Any]] = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": 'Change it only while its ETag is one of these, such as `"3"`; else 412.',
    "schema": {"type": "string"},
}
IF_NONE_MATCH: Final[Mapping[str, Any]] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "ETags that the caller has; 304 without a body where one of them is current.",
    "schema": {"type": "string"},
}
HEADERS: Final[Mapping[str, Any]] = {
    HEADER: {
        "description": "Changes with every change: send it back as `If-Match`.",
        "schema": {"type": "string", "pattern": '^"[0-9]+"$'},
    }
}

_TAG = re.compile(r'\s*(W/)?"([^"]*)"\s*')
_REVISION = re.compile(r"0|[1-9][0-9]{0,17}")  # as we write it, and within 64 bits


def expected() -> tuple[int, ...] | None:
    """The revisions that ``If-Match`` allows; None where any will do.

    Empty where nothing can match: weak tags never do, nor does what is no tag of ours.
    """
    given = request.headers.get("If-Match")
    if given is None or given.strip() == "*":
        return None
    return _revisions(given, weak=False)


def headers(revision: int) -> dict[str, str]:
    """The headers of an answer that shows the thing in this revision."""
    return {HEADER: f'"{revision}"'}


def not_modified(revision: int) -> Response | None:
    """The answer to a GET by somebody who has this revision (``If-None-Match``); else None."""
    given = request.headers.get("If-None-Match")
    if given is None or (given.strip() != "*" and revision not in _revisions(given, weak=True)):
        return None
    answer = Response(status=304, headers=headers(revision))
    del answer.headers["Content-Type"]
    return answer


def _revisions(given: str, *, weak: bool) -> tuple[int, ...]:
    """The revisions in a list of tags; an unquoted comma parts two of them."""
    found, at = [], 0
    while match := _TAG.match(given, at):
        is_weak, tag = match.groups()
        if _REVISION.fullmatch(tag) and (weak or not is_weak):
            found.append(int(tag))
        at = match.end()
        if given[at : at + 1] != ",":
            break
        at += 1
    return tuple(found) if at == len(given) else ()
