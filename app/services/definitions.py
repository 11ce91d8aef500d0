"""Definitions on their way in: checked, and made into the text that is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.domain.errors import Invalid
from app.domain.graph import parse
from app.domain.issues import Issue
from app.domain.jsonvalue import dumps
from app.domain.shape import MAX_BYTES, check_shape
from app.nodes import REGISTRY

EMPTY: dict[str, Any] = {"nodes": [], "edges": []}
_SHOWN = 3  # faults that the message tells; the details have all


def checked(definition: dict[str, Any]) -> str:
    """``definition`` as JSON text, in the shape in which it was given.

    Raises Invalid (or ValueRefused) with all the faults, by field.
    """
    document = dumps(definition, "definition", max_bytes=MAX_BYTES)
    if issues := errors(definition):
        raise refusal("the definition is not valid", "invalid_definition", issues)
    return document


def errors(definition: dict[str, Any]) -> list[Issue]:
    """What keeps ``definition`` from being saved."""
    return [issue for issue in check_shape(definition, REGISTRY) if issue.level == "error"]


def refusal(message: str, code: str, issues: Sequence[Issue]) -> Invalid:
    """The refusal of a definition for its faults: some in the message, all in the details."""
    details: dict[str, list[str]] = {}
    for issue in issues:
        details.setdefault(issue.field, []).append(issue.message)
    told = [_told(issue) for issue in issues[:_SHOWN]]
    if len(issues) > _SHOWN:
        told.append(f"and {len(issues) - _SHOWN} more")
    return Invalid(f"{message}: {'; '.join(told)}", code=code, details=details)


def _told(issue: Issue) -> str:
    """A fault in a list of them, with what has it; a fault of an edge may name one of its nodes."""
    message = issue.message.removesuffix(".")
    if issue.field.startswith("definition.edges."):
        return f"edge {issue.edge_id or 'without an id'}: {message}"
    return f"node {issue.node_id}: {message}" if issue.node_id else message


def runs_nothing(definition: dict[str, Any]) -> bool:
    """Whether a checked definition has nothing but notes."""
    return all(node.kind == "note" for node in parse(definition).nodes.values())
