"""Pages of a list: which part is wanted, and whether there is more behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

DEFAULT_LIMIT = 50
MAX_LIMIT = 100
MAX_OFFSET = 1_000_000


def listed(found: Sequence[T], limit: int, dump: Callable[[T], Any]) -> dict[str, Any]:
    """The body of a list of ``limit`` things; ``found`` has one too many where there is more.

    A page of nothing has nothing behind it, or whoever turns pages would never come to an end.
    """
    return {
        "object": "list",
        "data": [dump(one) for one in found[:limit]],
        "has_more": 0 < limit < len(found),
    }
