"""How long to wait before trying again."""

from __future__ import annotations

import random

BASE_SECONDS = 1.0  # before the second attempt
MAX_SECONDS = 300.0


def backoff(attempt: int, *, base: float = BASE_SECONDS) -> float:
    """Seconds to wait after the failed attempt number ``attempt`` (from 1).

    Doubles with each attempt up to MAX_SECONDS; half of it is random, so that many runs that
    failed together do not come back together.
    """
    full = min(MAX_SECONDS, base * 2.0 ** min(attempt - 1, 30))
    return full * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
