"""Which node is inside of which loop: the ``parentId`` of nodes, and what edges it allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.cycles import find_cycles
from app.domain.forms import body_of
from app.domain.issues import MAX_ID, Issues

MAX_LOOP_DEPTH = 5  # loops around one node

Parents = Mapping[str, str | None]


def is_drawing(parents: Parents, source: str, target: str) -> bool:
    """Whether an edge only draws that a loop has a body: it is not followed, and not waited for.

    Such is an edge from a loop to a node of its own body, or from there back to the loop.
    """
    return parents[target] == source or parents[source] == target


class Nesting:
    """The parents of the nodes of a definition, whatever it looks like."""

    def __init__(self, nodes: Sequence[Any], places: Mapping[str, int]) -> None:
        """``places`` has the index in ``nodes`` of each good id."""
        self._places = places
        self._raw: dict[str, Mapping[str, Any]] = {id: nodes[at] for id, at in places.items()}
        self._kinds = {id: body_of(raw).get("kind") for id, raw in self._raw.items()}
        self.parents: dict[str, str | None] = {}
        for id, raw in self._raw.items():
            parent = raw.get("parentId")
            self.parents[id] = parent if isinstance(parent, str) else None

    def sound(self, id: str) -> bool:
        """Whether the node is at the top, or inside of a loop that there is."""
        parent = self._raw[id].get("parentId")
        return parent is None or self._is_loop(parent)

    def check(self, issues: Issues) -> None:
        """Note what is wrong with the parents; their type is checked with the node's others."""
        links: list[tuple[str, str]] = []
        for id, parent in self.parents.items():
            if parent is None:
                continue
            if parent not in self.parents:
                message = f"The parentId '{parent[:MAX_ID]}' is no node of the definition."
                issues.add("dangling_parent", message, self._field(id), node_id=id)
            elif not self._is_loop(parent):
                message = f"The parentId '{parent}' is no loop; only a loop has nodes inside."
                issues.add("parent_not_loop", message, self._field(id), node_id=id)
            elif self._kinds[id] == "trigger":
                message = "A trigger can't be inside of a loop."
                issues.add("trigger_in_loop", message, self._field(id), node_id=id)
            else:
                links.append((id, parent))
        cycles = find_cycles(list(self.parents), links)
        for cycle in cycles:
            names = " -> ".join([*cycle[:20], "..."] if len(cycle) > 20 else [*cycle, cycle[0]])
            message = f"The loops are inside of each other: {names}."
            issues.add("parent_cycle", message, self._field(cycle[0]), node_id=cycle[0])
        if not cycles:
            self._check_depth(issues)

    def where(self, id: str) -> str:
        """Where a node is, in words."""
        parent = self.parents[id]
        return "outside of all loops" if parent is None else f"inside of the loop '{parent}'"

    def _check_depth(self, issues: Issues) -> None:
        for id in self.parents:
            # What is deeper still is inside of a node that is told.
            if self._depth(id) == MAX_LOOP_DEPTH + 1:
                message = f"The node is inside of more than {MAX_LOOP_DEPTH} loops."
                issues.add("too_deep", message, self._field(id), node_id=id)

    def _depth(self, id: str) -> int:
        depth, parent = 0, self.parents[id]
        while parent is not None and depth <= MAX_LOOP_DEPTH + 1:
            depth, parent = depth + 1, self.parents.get(parent)
        return depth

    def _is_loop(self, parent: Any) -> bool:
        return isinstance(parent, str) and self._kinds.get(parent) == "loop"

    def _field(self, id: str) -> str:
        return f"definition.nodes.{self._places[id]}.parentId"
