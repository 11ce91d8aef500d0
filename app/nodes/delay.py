"""The delay: waits without holding a thread.

Config: ``seconds`` (a number from 0 to ten years) or ``until`` (a time in ISO 8601; UTC where it
names no zone). Both may be a binding. A time that has passed ends the delay at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from app.domain.outcomes import Failed, Outcome, SleepUntil
from app.nodes.base import Context, NodeKind, Problem
from app.nodes.bindings import binding_problems, has_bindings

MAX_SECONDS = 10 * 366 * 24 * 3600


class Delay(NodeKind):
    """Answers the time at which the run goes on, counted from the step's start."""

    kind = "delay"
    bound = ("seconds", "until")
    interruptible = True

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[Problem]:
        """At most one of the two, and readable where it is no binding."""
        given = [name for name in self.bound if not _is_absent(config.get(name))]
        if len(given) > 1:
            yield Problem("config", "A delay takes seconds or until, not both.")
        for name in given:
            value = config[name]
            if has_bindings(value):
                yield from binding_problems(value, f"config.{name}")
                continue
            try:
                _seconds(value) if name == "seconds" else _until(value)
            except ValueError as error:
                yield Problem(f"config.{name}", str(error))

    def missing(self, config: Mapping[str, Any]) -> Iterable[Problem]:
        """One of the two."""
        if all(_is_absent(config.get(name)) for name in self.bound):
            yield Problem("config.seconds", "A delay needs seconds or until.")

    def run(self, context: Context) -> Outcome:
        """When to go on."""
        seconds, until = context.input.get("seconds"), context.input.get("until")
        try:
            if not _is_absent(seconds):
                return SleepUntil(context.started_at + timedelta(seconds=_seconds(seconds)))
            wake = _until(until)
        except ValueError as error:
            return Failed(str(error), retryable=False)
        if wake > context.started_at + timedelta(seconds=MAX_SECONDS):
            return Failed("until is more than ten years away.", retryable=False)
        return SleepUntil(wake)


def _is_absent(value: Any) -> bool:
    return value is None or value == ""


def _seconds(value: Any) -> float:
    try:
        # A binding inside of a text gives a text.
        seconds = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if isinstance(value, bool) or not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"seconds must be a number from 0 to {MAX_SECONDS}.")
    return seconds


def _until(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        message = "until must be a time in ISO 8601, such as 2030-01-31T08:00:00Z."
        raise ValueError(message) from None
