"""Pages of a list: which part is wanted, and whether there is more behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from app.domain.models import Page

T = TypeVar("T")

DEFAULT_LIMIT = 50
MAX_LIMIT = 100
MAX_OFFSET = 1_000_000


def page(query: Mapping[str, Any]) -> Page:
    """The page that a query string asks for, and one thing more: whether there is more."""
    return Page(query["limit"] + 1, query["offset"], query.get("cursor"))


def listed(
    found: Sequence[T],
    limit: int,
    dump: Callable[[T], Any],
    cursor: Callable[[T], str],
) -> dict[str, Any]:
    """The body of a list of ``limit`` things; ``found`` has one too many where there is more.

    ``cursor`` tells of a thing what the next page begins behind. A page of nothing has nothing
    behind it, or whoever turns pages would never come to an end.
    """
    has_more = 0 < limit < len(found)
    return {
        "object": "list",
        "data": [dump(one) for one in found[:limit]],
        "has_more": has_more,
        "next_cursor": cursor(found[limit - 1]) if has_more else None,
    }
