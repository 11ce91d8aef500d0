"""Finds the expressions of a config: its JSON Schema says where they may be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from app.domain.errors import ExpressionError
from app.domain.expressions import Expression, bare, compile_expression, compile_template

Schema = Mapping[str, Any]

_WITH_BINDINGS = frozenset({"bindings", "seconds", "moment", "http-url"})  # formats


@dataclass(frozen=True, slots=True)
class Source:
    """One expression: ``field`` is the path to it below the value that was looked through.

    ``inside`` says that it sees what the nodes inside of the loop see, not what the loop does.
    """

    field: str
    expression: Expression
    inside: bool = False


def expressions(schema: Schema, value: Any, field: str) -> Iterator[Source]:
    """The expressions in ``value``, in no promised order; those that do not parse are left out.

    ``schema`` is one of ours: bindings are where it refers to ``#/$defs/bindings``, or names a
    format (see nodes/fields.py); ``x-scope: body`` marks a loop's expressions about its inside.
    """
    if any("$ref" in one for one in (schema, *schema.get("anyOf", ()))):
        yield from _bindings(value, field)
    elif isinstance(value, str):
        inside = schema.get("x-scope") == "body"
        formats = {one.get("format") for one in (schema, *schema.get("anyOf", ()))}
        if "expression" in formats:
            yield from _one(value, field, inside)
        elif "json" in formats:
            yield from _bindings(_parsed(value), field)
        elif formats & _WITH_BINDINGS:
            yield from _bindings(value, field)
    elif isinstance(value, dict):
        for name, item in value.items():
            for below in _of_property(schema, name):
                yield from expressions(below, item, f"{field}.{name}")
    elif isinstance(value, list):
        for below in _each(schema, "items"):
            for index, item in enumerate(value):
                yield from expressions(below, item, f"{field}.{index}")


def _each(schema: Schema, keyword: str) -> Iterator[Any]:
    """What a schema, or an alternative of it, says under a keyword."""
    for one in (schema, *schema.get("anyOf", ())):
        if keyword in one:
            yield one[keyword]


def _of_property(schema: Schema, name: str) -> Iterator[Schema]:
    named = [properties[name] for properties in _each(schema, "properties") if name in properties]
    named += [
        below
        for patterns in _each(schema, "patternProperties")
        for pattern, below in patterns.items()
        if re.search(pattern, name)
    ]
    if named:
        yield from named
    else:
        yield from _each(schema, "additionalProperties")


def _one(source: str, field: str, inside: bool) -> Iterator[Source]:
    try:
        if source:
            yield Source(field, compile_expression(bare(source)), inside)
    except ExpressionError:
        return


def _bindings(value: Any, field: str) -> Iterator[Source]:
    stack = [(value, field)]
    while stack:
        item, path = stack.pop()
        if isinstance(item, str):
            if "{{" in item:
                yield from _of_text(item, path)
        elif isinstance(item, dict):
            stack.extend((inner, f"{path}.{key}") for key, inner in item.items())
        elif isinstance(item, list):
            stack.extend((inner, f"{path}.{index}") for index, inner in enumerate(item))


def _of_text(source: str, field: str) -> Iterator[Source]:
    try:
        template = compile_template(source)
    except ExpressionError:
        return
    for expression in template.expressions():
        yield Source(field, expression)


def _parsed(source: str) -> Any:
    """The JSON of a text; the text itself where only its bindings make it JSON."""
    try:
        return orjson.loads(source)
    except ValueError:
        return source
