"""What several node kinds need to check and hand on values with bindings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.domain.expressions import check_template
from app.nodes.base import Problem


def binding_problems(value: Any, field: str) -> Iterator[Problem]:
    """The bindings in ``value`` that do not parse, as faults of ``field`` and what is below it."""
    for path, message in check_template(value):
        yield Problem(f"{field}.{path}" if path else field, message)


def has_bindings(value: Any) -> bool:
    """Whether ``value`` is a text that holds a binding, so that its type is known only later."""
    return isinstance(value, str) and "{{" in value


def as_object(value: Any) -> dict[str, Any]:
    """``value`` as a step's output, which is always an object."""
    return value if isinstance(value, dict) else {"value": value}
