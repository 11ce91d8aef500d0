"""The loop: runs the nodes inside of it (those whose ``parentId`` it is) again and again.

Config: ``loopType`` (or the node's subtype), one of

- ``fixed_count``: ``iterations`` times, a whole number or a binding;
- ``for_each``: once for each item of the list that ``inputBinding``, an expression, gives; or once
  for each ``batchSize`` items of it;
- ``until``: until ``rule``, an expression, holds after an iteration.

``rule`` ends the other loops early. ``maxIterations`` bounds every loop: one that would go round
more often by its count or its list fails before it begins, so that nothing is left out silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from app.domain.expressions import bare, render
from app.domain.outcomes import Failed, LoopPlan, Outcome, Repeat
from app.domain.values import describe
from app.nodes.base import Context, NodeKind, Problem
from app.nodes.bindings import (
    binding_problems,
    expression_of,
    expression_problems,
    has_bindings,
    is_absent,
    is_whole,
)
from app.nodes.fields import (
    ABSENT,
    HAS_BINDINGS,
    Field,
    Schema,
    choice,
    expression,
    given,
    output,
    whole,
)

LOOP_TYPES = ("fixed_count", "for_each", "until")
MAX_ITERATIONS = 100_000  # of any loop
DEFAULT_MAX_ITERATIONS = 10_000  # where the config of a loop by count or list names none
MAX_BATCH = 10_000  # items

_NEEDED = {
    "fixed_count": ("iterations",),
    "for_each": ("inputBinding",),
    "until": ("rule", "maxIterations"),
}
_RULES: tuple[Schema, ...] = (
    *(
        {
            "if": {"required": ["loopType"], "properties": {"loopType": {"const": kind}}},
            "then": {"allOf": [given(name) for name in needed]},
        }
        for kind, needed in _NEEDED.items()
    ),
    {"if": {"properties": {"loopType": {"enum": list(ABSENT)}}}, "then": given("iterations")},
)


class Loop(NodeKind):
    """Says how often the nodes inside go round; the interpreter takes them round."""

    kind = "loop"
    usual_subtypes = LOOP_TYPES
    title = "Loop"
    told = "Runs the nodes inside of it (those whose parentId it is) again and again."
    fields = (
        choice("loopType", "What ends it.", LOOP_TYPES, default="fixed_count"),
        Field(
            "iterations",
            {
                "anyOf": [
                    {"enum": list(ABSENT)},
                    {"type": "integer", "minimum": 0, "maximum": MAX_ITERATIONS},
                    {"type": "string", "pattern": r"^\s*0{0,12}(100000|[0-9]{1,5})\s*$"},
                    HAS_BINDINGS,
                ],
                "description": "Of fixed_count: how often, at most maxIterations.",
            },
        ),
        expression("inputBinding", "Of for_each: what gives the list."),
        whole("batchSize", "Of for_each: the items that one iteration gets.", 1, MAX_BATCH),
        expression(
            "rule",
            "The loop ends when it holds after an iteration. It sees what the nodes inside see.",
            **{"x-scope": "body"},
        ),
        whole(
            "maxIterations",
            f"Where until ends at the latest. Other loops fail before they begin where they would"
            f" go round more often; {DEFAULT_MAX_ITERATIONS} for them where it is absent.",
            1,
            MAX_ITERATIONS,
        ),
    )
    rules = _RULES
    outputs = (
        output("iterations", "How many there were.", type="integer"),
        output("outputs", "What they answered, as far as it fits.", type="array"),
        output("truncated", "true where not all outputs fit.", type="boolean"),
        output("last", "What the last one answered.", type=["object", "null"]),
        output("stoppedBy", "count, rule or maxIterations.", type="string"),
    )

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[Problem]:
        """The type of loop, numbers in their ranges, and expressions that parse."""
        kind = _type(config)
        if kind not in LOOP_TYPES:
            shown = f"'{kind[:40]}'" if isinstance(kind, str) else "of that type"
            message = f"loopType {shown} is not available; there are {', '.join(LOOP_TYPES)}."
            yield Problem("config.loopType", message)
        most, batch = config.get("maxIterations"), config.get("batchSize")
        if most is not None and not is_whole(most, 1, MAX_ITERATIONS):
            message = f"maxIterations must be a whole number from 1 to {MAX_ITERATIONS}."
            yield Problem("config.maxIterations", message)
        if batch is not None and not is_whole(batch, 1, MAX_BATCH):
            message = f"batchSize must be a whole number from 1 to {MAX_BATCH}."
            yield Problem("config.batchSize", message)
        yield from _iterations_problems(config)
        for name in ("inputBinding", "rule"):
            yield from expression_problems(config.get(name), name)

    def missing(self, config: Mapping[str, Any]) -> Iterable[Problem]:
        """What tells the loop when to end."""
        kind = _type(config)
        for name in _NEEDED[kind]:
            if is_absent(config.get(name)):
                yield Problem(f"config.{name}", f"A loop of the type {kind} needs {name}.")

    def bind(self, config: Mapping[str, Any], scope: Mapping[str, Any]) -> dict[str, Any]:
        """``{"items": [...]}``, ``{"iterations": n}``, or nothing for ``until``."""
        kind = _type(config)
        if kind == "for_each":
            return {"items": expression_of(config["inputBinding"]).evaluate(scope)}
        if kind == "fixed_count":
            return {"iterations": render(config["iterations"], scope)}
        return {}

    def run(self, context: Context) -> Outcome:
        """The plan of the loop."""
        try:
            return Repeat(self.plan(context.config, context.input))
        except ValueError as error:
            return Failed(str(error), retryable=False)

    def plan(self, config: Mapping[str, Any], rendered: Mapping[str, Any] | None) -> LoopPlan:
        """How often the loop goes round, where ``rendered`` is what ``bind`` gave.

        Raises ValueError: no list, no number, or more iterations than ``maxIterations``.
        """
        rule = config.get("rule")
        until = bare(rule) if rule else None
        most = config.get("maxIterations") or DEFAULT_MAX_ITERATIONS
        kind = _type(config)
        if kind == "until":
            return LoopPlan(None, None, until, most)
        items = _groups(rendered, config.get("batchSize")) if kind == "for_each" else None
        count = _iterations(rendered) if items is None else len(items)
        if count > most:
            hint = "" if config.get("maxIterations") else ", as the config sets no other"
            raise ValueError(
                f"The loop would go round {count:,} times; maxIterations is {most:,}{hint}."
            )
        return LoopPlan(count, items, until, most)


def _type(config: Mapping[str, Any]) -> Any:
    value = config.get("loopType")
    return "fixed_count" if is_absent(value) else value


def _iterations_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    value, most = config.get("iterations"), config.get("maxIterations")
    if is_absent(value):
        return
    if has_bindings(value):
        yield from binding_problems(value, "config.iterations")
        return
    count = _whole(value)
    if count is None or not 0 <= count <= MAX_ITERATIONS:
        message = f"iterations must be a whole number from 0 to {MAX_ITERATIONS}."
        yield Problem("config.iterations", message)
    elif _type(config) == "fixed_count" and (most is None or is_whole(most, 1, MAX_ITERATIONS)):
        most = most or DEFAULT_MAX_ITERATIONS
        if count > most:
            message = f"iterations is more than maxIterations, which is {most}."
            yield Problem("config.iterations", message)


def _iterations(rendered: Mapping[str, Any] | None) -> int:
    count = _whole((rendered or {}).get("iterations"))
    if count is None or count < 0:
        raise ValueError("iterations must be a whole number, and not less than 0.")
    return count


def _whole(value: Any) -> int | None:
    """A whole number, also where a binding made it a text, or a division a number with ``.0``."""
    if isinstance(value, str):
        digits = value.strip()
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None


def _groups(rendered: Mapping[str, Any] | None, batch: int | None) -> tuple[list[Any], ...]:
    """The items of each iteration: one, or up to ``batch``."""
    items = (rendered or {}).get("items")
    if not isinstance(items, list):
        raise ValueError(f"inputBinding must give a list, but gave {describe(items)}.")
    size = batch or 1
    return tuple(items[start : start + size] for start in range(0, len(items), size))
