"""The faults of a definition in answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.domain.issues import Issue


def validation(issues: Iterable[Issue], mode: str) -> dict[str, Any]:
    """What a validation has found; it is valid where no error is among it."""
    dumped = [issue(one) for one in issues]
    valid = not any(one["level"] == "error" for one in dumped)
    return {"valid": valid, "mode": mode, "issues": dumped}


def issue(one: Issue) -> dict[str, Any]:
    """One fault."""
    return {
        "level": one.level,
        "code": one.code,
        "nodeId": one.node_id,
        "edgeId": one.edge_id,
        "field": one.field,
        "message": one.message,
    }
