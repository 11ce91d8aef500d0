"""The trigger: where a run begins. Its output is the run's input."""

from __future__ import annotations

from app.domain.outcomes import Done, Outcome
from app.nodes.base import Context, NodeKind


class Trigger(NodeKind):
    """Hands the run's input on as its output; its config says who may start the run, not how."""

    kind = "trigger"

    def run(self, context: Context) -> Outcome:
        """The run's input."""
        given = context.scope["trigger"]["input"]
        return Done(given if isinstance(given, dict) else {"value": given})
