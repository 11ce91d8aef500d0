"""What several node kinds need to check and hand on values with bindings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from app.domain.errors import ExpressionError
from app.domain.expressions import (
    Expression,
    bare,
    check_template,
    compile_expression,
    render,
)
from app.nodes.base import Problem


def binding_problems(value: Any, field: str) -> Iterator[Problem]:
    """The bindings in ``value`` that do not parse, as faults of ``field`` and what is below it."""
    for path, message in check_template(value):
        yield Problem(f"{field}.{path}" if path else field, message)


def has_bindings(value: Any) -> bool:
    """Whether ``value`` is a text that holds a binding, so that its type is known only later."""
    return isinstance(value, str) and "{{" in value


def is_absent(value: Any) -> bool:
    """Whether a field is null, or the empty text that a form leaves behind."""
    return value is None or value == ""


def as_object(value: Any) -> dict[str, Any]:
    """``value`` as a step's output, which is always an object."""
    return value if isinstance(value, dict) else {"value": value}


def is_whole(value: Any, least: int, most: int) -> bool:
    """Whether ``value`` is a whole number from ``least`` to ``most``; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def text_problems(config: Mapping[str, Any], *names: str) -> Iterator[Problem]:
    """The fields that are neither null nor a text, or whose bindings do not parse."""
    for name in names:
        value = config.get(name)
        if not isinstance(value, (str, type(None))):
            yield Problem(f"config.{name}", f"{name} must be a text.")
        else:
            yield from binding_problems(value, f"config.{name}")


# -- a field that is an expression, such as inputBinding


def expression_of(source: str) -> Expression:
    """The compiled expression, also where it is written as a binding. Raises ExpressionError."""
    return compile_expression(bare(source))


def expression_problems(value: Any, name: str) -> Iterator[Problem]:
    """What is wrong with the config field ``name``, which may be absent or an expression."""
    if is_absent(value):
        return
    try:
        if not isinstance(value, str):
            raise ExpressionError(f"{name} must be a text: an expression.")
        expression_of(value)
    except ExpressionError as error:
        yield Problem(f"config.{name}", error.message)


# -- a field for any JSON, which may also be given as a text: payload or payloadJson


def json_problems(config: Mapping[str, Any], name: str) -> Iterator[Problem]:
    """The faults of the fields ``name`` (any JSON) and ``nameJson`` (a text that holds JSON)."""
    value, text = config.get(name), config.get(f"{name}Json")
    if not isinstance(text, (str, type(None))):
        yield Problem(f"config.{name}Json", f"{name}Json must be a text.")
        return
    if value is not None and text:
        yield Problem("config", f"A node takes {name} or {name}Json, not both.")
    yield from binding_problems(value, f"config.{name}")
    if text:
        problems = list(binding_problems(text, f"config.{name}Json"))
        yield from problems
        if not problems and "{{" not in text and _parsed(text) is None:
            yield Problem(f"config.{name}Json", f"{name}Json must hold JSON.")


def render_json(config: Mapping[str, Any], name: str, scope: Mapping[str, Any]) -> Any:
    """The value of the fields ``name`` or ``nameJson``, rendered; None where both are absent.

    What it holds may be part of the scope: nobody may change it. Raises ExpressionError.
    """
    text = config.get(f"{name}Json")
    if not text:
        return render(config.get(name), scope)
    # Bindings inside of the JSON's texts are filled in after parsing, so that a quote in a value
    # can't break the JSON. Where bindings stand for whole values, only the filled text is JSON.
    parsed = _parsed(text)
    if parsed is not None:
        return render(parsed[0], scope)
    filled = render(text, scope)
    if not isinstance(filled, str):
        return filled
    parsed = _parsed(filled)
    if parsed is None:
        raise ExpressionError(f"{name}Json is no JSON once its bindings are filled in.")
    return parsed[0]


def _parsed(text: str) -> tuple[Any] | None:
    try:
        return (orjson.loads(text),)
    except ValueError:
        return None
