"""The trigger: where a run begins. Its output is the run's input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.outcomes import Done, Outcome
from app.nodes.base import Context, NodeKind, Problem
from app.nodes.trigger_types import COMMON, TRIGGER_TYPES, trigger_problems


class Trigger(NodeKind):
    """Hands the run's input on as its output; its config says who may start the run, not how."""

    kind = "trigger"
    pure = True
    usual_subtypes = tuple(TRIGGER_TYPES)
    title = "Trigger"
    told = "Begins the run; the subtype is what starts it, manual where it is absent."
    fields = COMMON
    handles = {}  # noqa: RUF012 - never changed

    def publish_problems(self, config: Mapping[str, Any], subtype: str | None) -> Iterable[Problem]:
        """Filters and schedules that can't be read. A draft may hold anything: it is never due."""
        return trigger_problems(subtype or "manual", config)

    def run(self, context: Context) -> Outcome:
        """The run's input."""
        given = context.scope["trigger"]["input"]
        return Done(given if isinstance(given, dict) else {"value": given})
