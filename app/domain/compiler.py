"""Turns the text of an expression into a function: Jinja parses, this file allows and compiles.

Jinja's own code generator is not used. Each node of the syntax tree that is allowed becomes a small
closure over JSON values; every other node is refused. So no Python attribute, call or builtin can
be reached, whatever the text says.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.parser import Parser

from app.domain import values
from app.domain.errors import ExpressionError, ValueRefused
from app.domain.filters import FILTERS
from app.domain.jsonvalue import check_json
from app.domain.values import Budget, Missing, present, truth

MAX_SOURCE = 10_000  # characters of one expression
MAX_DEPTH = 150  # levels of nesting in one expression

Run = Callable[[Mapping[str, Any], Budget], Any]
Names = set[tuple[str, ...]]

_ENVIRONMENT = Environment(autoescape=False)  # noqa: S701 - parses only, never renders
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

_BINARY: dict[type[nodes.Node], Callable[[Any, Any, Budget], Any]] = {
    nodes.Add: values.add,
    nodes.Sub: values.arithmetic("-", operator.sub),
    nodes.Mul: values.arithmetic("*", operator.mul),
    nodes.Div: values.arithmetic("/", operator.truediv),
    nodes.FloorDiv: values.arithmetic("//", operator.floordiv),
    nodes.Mod: values.arithmetic("%", operator.mod),
}
_COMPARE: dict[str, Callable[[Any, Any, Budget], bool]] = {
    "eq": values.equals,
    "ne": lambda a, b, budget: not values.equals(a, b, budget),
    "lt": values.ordering("<", operator.lt),
    "lteq": values.ordering("<=", operator.le),
    "gt": values.ordering(">", operator.gt),
    "gteq": values.ordering(">=", operator.ge),
    "in": values.contains,
    "notin": lambda a, b, budget: not values.contains(a, b, budget),
}
_TESTS: dict[str, Callable[[Any], bool]] = {
    "defined": lambda value: type(value) is not Missing,
    "undefined": lambda value: type(value) is Missing,
    "none": lambda value: present(value) is None,
    "null": lambda value: present(value) is None,
    "boolean": lambda value: type(present(value)) is bool,
    "number": lambda value: values.is_number(present(value)),
    "string": lambda value: type(present(value)) is str,
    "list": lambda value: type(present(value)) is list,
    "object": lambda value: type(present(value)) is dict,
}


def compile_source(source: str) -> tuple[Run, Names]:
    """The function of an expression, and the paths that it names (``("steps", "a", "output")``).

    Raises ExpressionError, whose message has no mention of the source.
    """
    if not source.strip():
        raise ExpressionError("it is empty")
    try:
        parser = Parser(_ENVIRONMENT, source, state="variable")
        tree = parser.parse_expression()
        if not parser.stream.eos:
            raise ExpressionError(f"{parser.stream.current.value!r} is not expected there")
        names: Names = set()
        return _compile(tree, names, 0), names
    except TemplateSyntaxError as error:
        message = (error.message or "it can't be read").replace("'end of template'", "end")
        raise ExpressionError(message) from None
    except (ValueError, OverflowError):
        raise ExpressionError("it holds a number that can't be read") from None
    except RecursionError:
        raise ExpressionError("it is nested too deeply") from None


def _compile(node: nodes.Node, names: Names, depth: int) -> Run:
    if depth > MAX_DEPTH:
        raise ExpressionError("it is nested too deeply")
    compiler = _COMPILERS.get(type(node))
    if compiler is None:
        what = _REFUSED.get(type(node), f"'{type(node).__name__}' is not part of the language")
        raise ExpressionError(what)
    return compiler(node, names, depth + 1)


_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Call: "calls are not allowed; use a filter, such as 'x|length'",
    nodes.Pow: "'**' is not allowed",
}


def _const(node: Any, _names: Names, _depth: int) -> Run:
    value = node.value
    if type(value) is str or values.is_number(value):
        try:
            check_json(value, "it", max_bytes=4 * MAX_SOURCE)
        except ValueRefused as error:
            raise ExpressionError(error.message) from None
    elif value is not None and type(value) is not bool:
        raise ExpressionError(f"{value!r} is no JSON value")
    return lambda scope, budget: value


def _name(node: Any, names: Names, _depth: int) -> Run:
    name: str = node.name
    if name == "null":
        return lambda scope, budget: None
    names.add((name,))

    def run(scope: Mapping[str, Any], budget: Budget) -> Any:
        return values.get(scope, name, name)

    return run


def _item(node: Any, names: Names, depth: int) -> Run:
    """``a.b``, ``a['b']``, ``a[0]``, ``a[i]`` and ``a[1:3]``: entries, never attributes."""
    if type(node) is nodes.Getitem and type(node.arg) is nodes.Slice:
        return _slice(node, names, depth)
    path = _path(node)
    key = _key(node)
    static = None if key is None else _static_path(node)
    others = frozenset(names)
    base = _compile(node.node, names, depth)
    if static is not None:
        # The base has put in its own, shorter path, unless something else had named that.
        names.difference_update({static[:-1]} - others)
        names.add(static)
    if key is not None:
        return lambda scope, budget: values.get(base(scope, budget), key, path)
    index = _compile(node.arg, names, depth)
    return lambda scope, budget: values.get(base(scope, budget), index(scope, budget), path)


def _slice(node: Any, names: Names, depth: int) -> Run:
    base = _compile(node.node, names, depth)
    start, stop, step = (
        _nothing if part is None else _compile(part, names, depth)
        for part in (node.arg.start, node.arg.stop, node.arg.step)
    )
    return lambda scope, budget: values.cut(
        base(scope, budget), start(scope, budget), stop(scope, budget), step(scope, budget), budget
    )


def _nothing(_scope: Mapping[str, Any], _budget: Budget) -> None:
    return None


def _key(node: Any) -> str | int | None:
    if type(node) is nodes.Getattr:
        return str(node.attr)
    if type(node.arg) is nodes.Const and type(node.arg.value) in (str, int):
        key: str | int = node.arg.value
        return key
    return None


def _static_path(node: Any) -> tuple[str, ...] | None:
    keys: list[str] = []
    while type(node) in (nodes.Getattr, nodes.Getitem):
        key = _key(node)
        if key is None:
            return None
        keys.append(str(key))
        node = node.node
    return (node.name, *reversed(keys)) if type(node) is nodes.Name else None


def _path(node: Any) -> str:
    """How the source wrote a path, for errors."""
    parts: list[str] = []
    while type(node) in (nodes.Getattr, nodes.Getitem):
        key = _key(node)
        if type(key) is str and _PLAIN_NAME.match(key):
            parts.append(f".{key}")
        else:
            parts.append("[...]" if key is None else f"[{key!r}]")
        node = node.node
    parts.append(node.name if type(node) is nodes.Name else "(...)")
    return "".join(reversed(parts))


def _list(node: Any, names: Names, depth: int) -> Run:
    items = [_compile(item, names, depth) for item in node.items]

    def run(scope: Mapping[str, Any], budget: Budget) -> list[Any]:
        made = [present(item(scope, budget)) for item in items]
        for value in made:
            budget.spend_on(value)
        return made

    return run


def _dict(node: Any, names: Names, depth: int) -> Run:
    pairs = [(_compile(p.key, names, depth), _compile(p.value, names, depth)) for p in node.items]

    def run(scope: Mapping[str, Any], budget: Budget) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key_of, value_of in pairs:
            key, value = present(key_of(scope, budget)), present(value_of(scope, budget))
            if type(key) is not str:
                kind = values.describe(key)
                raise ExpressionError(f"the key of an object must be a text, not {kind}")
            budget.spend(len(key))
            budget.spend_on(value)
            made[key] = value
        return made

    return run


def _binary(node: Any, names: Names, depth: int) -> Run:
    work = _BINARY[type(node)]
    left, right = _compile(node.left, names, depth), _compile(node.right, names, depth)
    return lambda scope, budget: work(left(scope, budget), right(scope, budget), budget)


def _and(node: Any, names: Names, depth: int) -> Run:
    left, right = _compile(node.left, names, depth), _compile(node.right, names, depth)

    def run(scope: Mapping[str, Any], budget: Budget) -> Any:
        value = left(scope, budget)
        return right(scope, budget) if truth(value) else value

    return run


def _or(node: Any, names: Names, depth: int) -> Run:
    left, right = _compile(node.left, names, depth), _compile(node.right, names, depth)

    def run(scope: Mapping[str, Any], budget: Budget) -> Any:
        value = left(scope, budget)
        return value if truth(value) else right(scope, budget)

    return run


def _not(node: Any, names: Names, depth: int) -> Run:
    inner = _compile(node.node, names, depth)
    return lambda scope, budget: not truth(inner(scope, budget))


def _sign(node: Any, names: Names, depth: int) -> Run:
    inner = _compile(node.node, names, depth)
    negative = type(node) is nodes.Neg

    def run(scope: Mapping[str, Any], budget: Budget) -> Any:
        value = present(inner(scope, budget))
        if not values.is_number(value):
            raise ExpressionError(f"a sign can't be put before {values.describe(value)}")
        return values.checked_number(-value) if negative else value

    return run


def _compare(node: Any, names: Names, depth: int) -> Run:
    first = _compile(node.expr, names, depth)
    steps = [(_COMPARE[op.op], _compile(op.expr, names, depth)) for op in node.ops]
    if len(steps) == 1:
        work, second = steps[0]
        return lambda scope, budget: work(first(scope, budget), second(scope, budget), budget)

    def run(scope: Mapping[str, Any], budget: Budget) -> bool:
        left = first(scope, budget)
        for work, right_of in steps:
            right = right_of(scope, budget)
            if not work(left, right, budget):
                return False
            left = right
        return True

    return run


def _concat(node: Any, names: Names, depth: int) -> Run:
    parts = [_compile(part, names, depth) for part in node.nodes]
    return lambda scope, budget: values.joined((part(scope, budget) for part in parts), budget)


def _choice(node: Any, names: Names, depth: int) -> Run:
    """``a if test else b``; null where there is no else."""
    test, yes = _compile(node.test, names, depth), _compile(node.expr1, names, depth)
    no = _nothing if node.expr2 is None else _compile(node.expr2, names, depth)
    return lambda scope, budget: (yes if truth(test(scope, budget)) else no)(scope, budget)


def _filter(node: Any, names: Names, depth: int) -> Run:
    known = FILTERS.get(node.name)
    if known is None or node.node is None:
        raise ExpressionError(f"there is no filter '{node.name}' (there are: {', '.join(FILTERS)})")
    if node.kwargs or node.dyn_args or node.dyn_kwargs:
        raise ExpressionError(f"the filter '{node.name}' takes no named arguments")
    if not known.least <= len(node.args) <= known.most:
        span = str(known.least) if known.least == known.most else f"{known.least} to {known.most}"
        raise ExpressionError(f"the filter '{node.name}' takes {span} arguments")
    inner = _compile(node.node, names, depth)
    args = [_compile(arg, names, depth) for arg in node.args]

    def run(scope: Mapping[str, Any], budget: Budget) -> Any:
        value = inner(scope, budget)
        if not known.takes_missing:
            present(value)
        return known.run(value, [present(arg(scope, budget)) for arg in args], budget)

    return run


def _test(node: Any, names: Names, depth: int) -> Run:
    work = _TESTS.get(node.name)
    if work is None or node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
        raise ExpressionError(f"there is no test 'is {node.name}' (there are: {', '.join(_TESTS)})")
    inner = _compile(node.node, names, depth)
    return lambda scope, budget: work(inner(scope, budget))


_COMPILERS: dict[type[nodes.Node], Callable[[Any, Names, int], Run]] = {
    nodes.Const: _const,
    nodes.Name: _name,
    nodes.Getattr: _item,
    nodes.Getitem: _item,
    nodes.List: _list,
    nodes.Tuple: _list,
    nodes.Dict: _dict,
    **dict.fromkeys(_BINARY, _binary),
    nodes.And: _and,
    nodes.Or: _or,
    nodes.Not: _not,
    nodes.Neg: _sign,
    nodes.Pos: _sign,
    nodes.Compare: _compare,
    nodes.Concat: _concat,
    nodes.CondExpr: _choice,
    nodes.Filter: _filter,
    nodes.Test: _test,
}
