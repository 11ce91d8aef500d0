"""A time to wait for, as a config has it: a number of seconds, or a moment in ISO 8601."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from app.nodes.base import Problem
from app.nodes.bindings import binding_problems, has_bindings, is_absent

MAX_SECONDS = 10 * 366 * 24 * 3600


def moment_problems(config: Mapping[str, Any], seconds: str, until: str) -> Iterator[Problem]:
    """The faults of the fields called ``seconds`` and ``until``, of which one may be given."""
    given = [name for name in (seconds, until) if not is_absent(config.get(name))]
    if len(given) > 1:
        yield Problem("config", f"A node takes {seconds} or {until}, not both.")
    for name in given:
        value = config[name]
        if has_bindings(value):
            yield from binding_problems(value, f"config.{name}")
            continue
        try:
            _seconds(value, name) if name == seconds else _until(value, name)
        except ValueError as error:
            yield Problem(f"config.{name}", str(error))


def moment_of(
    rendered: Mapping[str, Any], seconds: str, until: str, start: datetime
) -> datetime | None:
    """The moment of the two fields, counted from ``start``; None where both are absent.

    Raises ValueError where one can't be read, or is more than ten years away.
    """
    after, moment = rendered.get(seconds), rendered.get(until)
    if not is_absent(after):
        return start + timedelta(seconds=_seconds(after, seconds))
    if is_absent(moment):
        return None
    wake = _until(moment, until)
    if wake > start + timedelta(seconds=MAX_SECONDS):
        raise ValueError(f"{until} is more than ten years away.")
    return wake


def _seconds(value: Any, name: str) -> float:
    try:
        # A binding inside of a text gives a text.
        seconds = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if isinstance(value, bool) or not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"{name} must be a number from 0 to {MAX_SECONDS}.")
    return seconds


def _until(value: Any, name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        message = f"{name} must be a time in ISO 8601, such as 2030-01-31T08:00:00Z."
        raise ValueError(message) from None
