"""The one expression language: conditions, and bindings ``{{ ... }}`` inside of JSON values.

``steps.shape.output.n > 10 and trigger.input.name is defined``

An expression is made of paths, JSON literals, ``+ - * / // % ~``, comparisons, ``in``, ``and or
not``, ``a if b else c``, slices, and the filters of ``filters.py``. A dot means the entry of an
object (or a list's index), never an attribute: ``steps.x.items`` is the entry "items". A path that
leads nowhere is an error, but for ``is defined`` and the filter ``default`` (which also replaces
null). Only ``{{ }}`` is special in a text: ``{% %}`` and ``{# #}`` are ordinary characters, and
``{{ '{{' }}`` writes the braces themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from app.domain.compiler import MAX_SOURCE, Names, Run, compile_source
from app.domain.errors import ExpressionError
from app.domain.values import Budget, Missing, joined, present

_CACHED = 2048  # expressions and templates each
_CACHED_TEXT = 20_000  # characters; longer templates are compiled anew each time
_MAX_DEPTH = 100  # of a value with bindings; a stored definition has 64 at most
_SHOWN = 80  # characters of a source in an error

# What matters while the end of a binding is looked for: quoted texts, braces and brackets.
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\}\}|[{\[(]|[}\])]""", re.DOTALL)


class Expression:
    """A compiled expression; it has no state, so all threads may share it."""

    __slots__ = ("_names", "_run", "source")

    def __init__(self, source: str, run: Run, names: Names) -> None:
        self.source = source
        self._run = run
        self._names = names

    def evaluate(self, scope: Mapping[str, Any]) -> Any:
        """The JSON value of the expression, where ``scope`` maps its names to JSON values.

        Raises ExpressionError: a missing name, operands of a wrong kind, too much data.
        """
        return self.spend(scope, Budget())

    def look_up(self, scope: Mapping[str, Any]) -> Any:
        """``evaluate``, but None where the path that the expression is leads nowhere."""
        return self.spend(scope, Budget(), or_none=True)

    def spend(self, scope: Mapping[str, Any], budget: Budget, *, or_none: bool = False) -> Any:
        """``evaluate`` on a budget that several expressions share."""
        try:
            value = self._run(scope, budget)
            return None if or_none and type(value) is Missing else present(value)
        except ExpressionError as error:
            raise _located(self.source, error) from None
        except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
            raise _located(self.source, ExpressionError(f"it failed: {error}")) from None

    def names(self) -> frozenset[tuple[str, ...]]:
        """The paths that the expression reads, such as ``("steps", "a", "output", "n")``."""
        return frozenset(self._names)


def compile_expression(source: str) -> Expression:
    """Compile ``source``, at most 10,000 characters; cached.

    Raises ExpressionError with a message that shows what is wrong.
    """
    if len(source) > MAX_SOURCE:
        raise _located(source, ExpressionError(f"it is longer than {MAX_SOURCE:,} characters"))
    return _compiled(source)


@lru_cache(maxsize=_CACHED)
def _compiled(source: str) -> Expression:
    try:
        run, names = compile_source(source)
    except ExpressionError as error:
        raise _located(source, error) from None
    return Expression(source, run, names)


def _located(source: str, error: ExpressionError) -> ExpressionError:
    shown = source.strip()
    if len(shown) > _SHOWN:
        shown = shown[:_SHOWN] + "..."
    shown = shown.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
    return ExpressionError(f'in the expression "{shown}": {error.message}')


def bare(source: str) -> str:
    """An expression without the braces in which it may be written."""
    stripped = source.strip()
    if stripped.startswith("{{") and stripped.endswith("}}"):
        return stripped[2:-2].strip()
    return stripped


class Template:
    """A text with bindings. It is ``lone`` where the text is one binding and nothing else."""

    __slots__ = ("_parts", "lone")

    def __init__(self, parts: list[str | Expression]) -> None:
        self._parts = parts
        self.lone = len(parts) == 1 and isinstance(parts[0], Expression)

    def render(self, scope: Mapping[str, Any], budget: Budget) -> Any:
        """The text with its bindings filled in; a lone binding keeps its JSON type."""
        if self.lone:
            value = self._parts[0].spend(scope, budget)  # type: ignore[union-attr]
            budget.spend_on(value)
            return value
        return joined(
            (part if isinstance(part, str) else part.spend(scope, budget) for part in self._parts),
            budget,
        )

    def expressions(self) -> list[Expression]:
        """The bindings, in the order of the text."""
        return [part for part in self._parts if isinstance(part, Expression)]


def compile_template(source: str) -> Template:
    """Compile a text with ``{{ }}`` bindings; cached. Raises ExpressionError."""
    if len(source) > _CACHED_TEXT:
        return Template(_split(source))
    return _compiled_template(source)


@lru_cache(maxsize=_CACHED)
def _compiled_template(source: str) -> Template:
    return Template(_split(source))


def _split(source: str) -> list[str | Expression]:
    parts: list[str | Expression] = []
    at = 0
    while (start := source.find("{{", at)) >= 0:
        if start > at:
            parts.append(source[at:start])
        end = _end(source, start + 2)
        parts.append(compile_expression(source[start + 2 : end]))
        at = end + 2
    if at < len(source):
        parts.append(source[at:])
    return parts


def _end(source: str, start: int) -> int:
    """Where the ``}}`` of a binding is: the first one outside of quotes, braces and brackets."""
    depth = 0
    for token in _TOKEN.finditer(source, start, start + MAX_SOURCE + 2):
        sign = token.group()
        if sign == "}}" and depth == 0:
            return token.start()
        if sign == "}}":
            # Two objects end here, or one ends right before the binding does.
            if depth == 1:
                return _end_after(source, token.start() + 1, start)
            depth -= 2
        elif sign in ("{", "[", "("):
            depth += 1
        elif sign in ("}", "]", ")"):
            depth -= 1
    raise _located(source[start:], ExpressionError("its '{{' is never closed by '}}'"))


def _end_after(source: str, at: int, start: int) -> int:
    if source.startswith("}}", at):
        return at
    raise _located(source[start:], ExpressionError("its '{{' is never closed by '}}'"))


def render(value: Any, scope: Mapping[str, Any]) -> Any:
    """``value``, any JSON, with the bindings of all its texts (not its keys) filled in.

    A part without bindings is returned as it is, not copied. Raises ExpressionError.
    """
    return _render(value, scope, Budget(), 0)


def _render(value: Any, scope: Mapping[str, Any], budget: Budget, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return compile_template(value).render(scope, budget) if "{{" in value else value
    if kind is dict or kind is list:
        if depth > _MAX_DEPTH:
            raise ExpressionError("the value with bindings is nested too deeply")
        if kind is dict:
            return {key: _render(item, scope, budget, depth + 1) for key, item in value.items()}
        return [_render(item, scope, budget, depth + 1) for item in value]
    return value


def check_template(value: Any) -> Iterator[tuple[str, str]]:
    """The faults of the bindings in ``value``, any JSON, as (path below it, message).

    The path of a lone text is ``""``, others are such as ``a.3``. Nothing is evaluated.
    """
    stack: list[tuple[Any, str]] = [(value, "")]
    while stack:
        item, path = stack.pop()
        if isinstance(item, str):
            if "{{" in item:
                try:
                    compile_template(item)
                except ExpressionError as error:
                    yield path, error.message
        elif isinstance(item, dict):
            below = [(inner, f"{path}.{key}" if path else str(key)) for key, inner in item.items()]
            stack.extend(reversed(below))
        elif isinstance(item, list):
            below = [(inner, f"{path}.{i}" if path else str(i)) for i, inner in enumerate(item)]
            stack.extend(reversed(below))
