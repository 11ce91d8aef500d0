"""Which paths the bindings and expressions of a config read.

That is what a node needs of the nodes before it. It is found in the text: what an expression names
may still be in a branch of it that is never evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.domain.compiler import MAX_SOURCE
from app.domain.errors import ExpressionError
from app.domain.expressions import compile_expression, compile_template

Path = tuple[str, ...]  # such as ("steps", "fetch", "output", "total")

# The fields, at any depth of a config, in which expressions are written without braces.
_BARE = frozenset(("expression", "field", "rule", "inputBinding", "recordsBinding"))
_SEVERAL = "inputBindings"  # an object or a list of such expressions


def paths(value: Any) -> frozenset[Path]:
    """The paths that ``value``, a config or a part of one, reads; what does not parse reads none.

    A path ends where the expression goes on with a key that is only known when it is evaluated:
    ``steps[trigger.input.which]`` reads ``("steps",)`` and ``("trigger", "input", "which")``.
    """
    found: set[Path] = set()
    for text, bare in _texts(value):
        try:
            if "{{" in text:
                for expression in compile_template(text).expressions():
                    found |= expression.names()
            elif bare and len(text) <= MAX_SOURCE:
                found |= compile_expression(text).names()
        except ExpressionError:
            continue  # the check of the definition tells of it
    return frozenset(found)


def _texts(value: Any) -> Iterator[tuple[str, bool]]:
    """Every text in ``value``, and whether it stands where an expression needs no braces."""
    stack: list[tuple[Any, bool]] = [(value, False)]
    while stack:
        item, bare = stack.pop()
        if isinstance(item, str):
            yield item, bare
        elif isinstance(item, dict):
            for key, inner in item.items():
                of_several = bare and not isinstance(inner, (dict, list))
                stack.append((inner, of_several or key in _BARE or key == _SEVERAL))
        elif isinstance(item, list):
            stack.extend((inner, bare) for inner in item)


def leads_somewhere(path: Path, value: Any) -> bool:
    """Whether there is something in the JSON ``value`` where ``path`` leads."""
    for key in path:
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.lstrip("-").isdigit() and key.isascii():
            index = int(key)
            if not -len(value) <= index < len(value):
                return False
            value = value[index]
        else:
            return False
    return True
