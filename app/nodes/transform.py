"""The transform: builds JSON from earlier outputs.

Config: ``output``, any JSON with bindings. The step's output is that JSON, or ``{"value": ...}``
where it is no object. The bindings are rendered in ``run``, not recorded as the step's input too:
the trace would hold the same value twice.
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


class Transform(NodeKind):
    """Renders ``config.output``."""

    kind = "transform"
    pure = True
    title = "Transform"
    told = "Builds JSON from what is known so far."
    fields = (
        anything(
            "output",
            "Any JSON with bindings: the output of the step; {value: ...} where it is no object.",
            needed=True,
        ),
    )

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[Problem]:
        """The bindings must parse."""
        yield from binding_problems(config.get("output"), "config.output")

    def missing(self, config: Mapping[str, Any]) -> Iterable[Problem]:
        """``output``, which may be null."""
        if "output" not in config:
            yield Problem("config.output", "A transform needs output: any JSON with bindings.")

    def run(self, context: Context) -> Outcome:
        """The rendered output."""
        try:
            return Done(as_object(render(context.config.get("output"), context.scope)))
        except ExpressionError as error:
            return Failed(error.message, retryable=False)
