"""The end of a path: its output is the run's output.

Config: ``output``, any JSON with bindings. Without it, the output of the node that leads here is
taken, or ``{nodeId: output}`` where several do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.errors import ExpressionError
from app.domain.expressions import render
from app.domain.outcomes import Done, Failed, Outcome
from app.nodes.base import Context, NodeKind, Problem
from app.nodes.bindings import as_object, binding_problems
from app.nodes.fields import anything


class End(NodeKind):
    """Renders ``config.output``, or hands on what came in (``scope["inbound"]``)."""

    kind = "end"
    pure = True
    title = "End"
    told = "Ends a path. Its output is that of the run, or of the iteration of the loop around it."
    fields = (
        anything(
            "output",
            "Any JSON with bindings. Without it, the output of the node that leads here is taken,"
            " or {nodeId: output} where several do.",
        ),
    )
    handles = {}  # noqa: RUF012 - never changed

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[Problem]:
        """The bindings must parse, and no edge may leave an end."""
        yield from binding_problems(config.get("output"), "config.output")
        for handle in sorted(handles):
            yield Problem(f"handles.{handle}", "An edge can't leave an end node.")

    def run(self, context: Context) -> Outcome:
        """The run's output."""
        output = context.config.get("output")
        if output is None:
            inbound = context.scope.get("inbound") or {}
            only = next(iter(inbound.values())) if len(inbound) == 1 else dict(inbound)
            return Done(as_object(only))
        try:
            return Done(as_object(render(output, context.scope)))
        except ExpressionError as error:
            return Failed(error.message, retryable=False)
