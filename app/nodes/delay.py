"""The delay: waits without holding a thread.

Config: ``seconds`` (a number from 0 to ten years) or ``until`` (a time in ISO 8601; UTC where it
names no zone). Both may be a binding. A time that has passed ends the delay at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.outcomes import Done, Failed, Outcome, SleepUntil
from app.nodes.base import Context, News, NodeKind, Problem
from app.nodes.bindings import is_absent
from app.nodes.fields import given, moment, not_both, one_of_them, output, seconds
from app.nodes.moments import MAX_SECONDS, moment_of, moment_problems


class Delay(NodeKind):
    """Answers the time at which the run goes on, counted from the step's start."""

    kind = "delay"
    title = "Delay"
    told = "Waits, without holding a thread."
    fields = (
        seconds("seconds", "How long, counted from the start of the step.", MAX_SECONDS),
        moment("until", "Instead of seconds: when it ends. UTC where it names no zone."),
    )
    rules = (one_of_them("seconds", "until"), not_both(given("seconds"), given("until")))
    outputs = (output("waitedMs", "How long it waited, in milliseconds.", type="integer"),)
    bound = ("seconds", "until")
    interruptible = True

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[Problem]:
        """At most one of the two, and readable where it is no binding."""
        yield from moment_problems(config, "seconds", "until")

    def missing(self, config: Mapping[str, Any]) -> Iterable[Problem]:
        """One of the two."""
        if all(is_absent(config.get(name)) for name in self.bound):
            yield Problem("config.seconds", "A delay needs seconds or until.")

    def run(self, context: Context) -> Outcome:
        """When to go on."""
        try:
            wake = moment_of(context.input, "seconds", "until", context.started_at)
        except ValueError as error:
            return Failed(str(error), retryable=False)
        if wake is None:
            return Failed("The bindings of seconds and until gave nothing.", retryable=False)
        return SleepUntil(wake)

    def resume(self, context: Context, news: News) -> Outcome:
        """Its time has come."""
        return Done({**news.output, "waitedMs": news.waited_ms})
