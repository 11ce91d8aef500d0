"""The check of a definition's edges."""

from __future__ import annotations

from typing import Any

from app.domain.issues import MAX_ID, Issues, id_fault
from app.domain.nesting import Nesting, is_drawing

_TYPES = (
    ("sourceHandle", str, "a text"),
    ("targetHandle", str, "a text"),
    ("config", dict, "an object"),
)


class EdgeCheck:
    """Looks at one edge after the other."""

    def __init__(self, nesting: Nesting, issues: Issues) -> None:
        self._nesting = nesting
        self._issues = issues
        self._seen: set[str] = set()
        self.links: list[tuple[str, str]] = []  # (source, target) of the good edges
        # For each node id: the handles of its leaving edges, and where those edges stand.
        self.handles: dict[str, dict[str, list[tuple[int, str | None]]]] = {}

    def check(self, raw: Any, index: int) -> None:
        """Note the faults of the edge at ``index``, and remember it where it is good."""
        field = f"definition.edges.{index}"
        if not isinstance(raw, dict):
            self._issues.add("invalid_type", "An edge must be an object.", field)
            return
        edge_id = self._id(raw, field)
        self._issues.add_types(raw, _TYPES, "edge", field, edge_id=edge_id)
        source = self._end(raw.get("source"), "source", f"{field}.source", edge_id)
        target = self._end(raw.get("target"), "target", f"{field}.target", edge_id)
        ends = None if source is None or target is None else (source, target)
        if ends is not None and is_drawing(self._nesting.parents, *ends):
            return
        handle = raw.get("sourceHandle")
        if source is not None and isinstance(handle, (str, type(None))):
            handles = self.handles.setdefault(source, {})
            handles.setdefault(handle or "", []).append((index, edge_id))
        if ends is not None:
            self._link(*ends, field, edge_id)

    def _link(self, source: str, target: str, field: str, edge_id: str | None) -> None:
        nesting = self._nesting
        if source == target:
            message = f"The edge leads from the node '{source}' to itself."
            self._issues.add("self_loop", message, field, node_id=source, edge_id=edge_id)
        elif nesting.parents[source] == nesting.parents[target]:
            self.links.append((source, target))
        elif nesting.sound(source) and nesting.sound(target):
            message = (
                f"The edge crosses the border of a loop: '{source}' is {nesting.where(source)}, "
                f"'{target}' is {nesting.where(target)}."
            )
            self._issues.add("edge_crosses_loop", message, field, node_id=source, edge_id=edge_id)

    def _id(self, raw: dict[str, Any], field: str) -> str | None:
        id = raw.get("id")
        if id is None:
            return None
        fault = id_fault(id)
        if fault:
            self._issues.add("invalid_id", f"The edge's id {fault}.", f"{field}.id")
            return None
        if id in self._seen:
            message = f"The edge id '{id}' is used twice."
            self._issues.add("duplicate_id", message, f"{field}.id", edge_id=id)
        self._seen.add(id)
        return str(id)

    def _end(self, value: Any, name: str, field: str, edge_id: str | None) -> str | None:
        """The id of a node that there is."""
        if value is None:
            self._issues.add("missing_field", f"The edge has no {name}.", field, edge_id=edge_id)
        elif not isinstance(value, str):
            message = f"The edge's {name} must be a text."
            self._issues.add("invalid_type", message, field, edge_id=edge_id)
        elif value not in self._nesting.parents:
            message = f"The edge's {name} '{value[:MAX_ID]}' is no node of the definition."
            self._issues.add("dangling_edge", message, field, edge_id=edge_id)
        else:
            return value
        return None
