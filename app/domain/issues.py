"""The faults of a definition, as they are found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

MAX_ISSUES = 100
MAX_ID = 128  # characters

# (name of a field, the type that it must have, that type in words)
Types = Iterable[tuple[str, type, str]]


@dataclass(frozen=True, slots=True)
class Issue:
    """One fault of a definition; ``field`` is a path such as ``definition.nodes.2.config.url``."""

    level: Literal["error", "warning"]
    code: str
    message: str
    field: str
    node_id: str | None = None
    edge_id: str | None = None


class Issues:
    """What has been found so far, at most 100 faults."""

    def __init__(self) -> None:
        self.found: list[Issue] = []

    @property
    def full(self) -> bool:
        """Whether it is of no use to look on."""
        return len(self.found) >= MAX_ISSUES

    def add(
        self,
        code: str,
        message: str,
        field: str,
        *,
        node_id: str | None = None,
        edge_id: str | None = None,
    ) -> None:
        """Note one fault."""
        if not self.full:
            self.found.append(Issue("error", code, message, field, node_id, edge_id))

    def add_types(
        self,
        raw: Mapping[str, Any],
        types: Types,
        of: str,
        field: str,
        *,
        node_id: str | None = None,
        edge_id: str | None = None,
    ) -> None:
        """Note the fields of ``raw`` that are neither null nor of their type; ``of`` has them."""
        for name, kind, what in types:
            if not isinstance(raw.get(name), (kind, type(None))):
                message = f"The {of}'s {name} must be {what}."
                below = f"{field}.{name}"
                self.add("invalid_type", message, below, node_id=node_id, edge_id=edge_id)


def id_fault(value: Any) -> str | None:
    """What is wrong with an id, such as "must be a text"; None for nothing."""
    if not isinstance(value, str):
        return "must be a text"
    if not value.strip():
        return "is empty"
    return f"is longer than {MAX_ID} characters" if len(value) > MAX_ID else None
