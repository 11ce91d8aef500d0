"""What a caller selects of a workflow to test it alone: one node, or nodes that are connected.

Two nodes are connected by an edge, and a loop with the nodes right inside of it. A loop that is
selected without anything inside of it stands for all that is inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.domain.errors import Conflict, Invalid
from app.domain.graph import Graph

_SHOWN = 10  # ids in a message


@dataclass(frozen=True, slots=True)
class Selection:
    """The ids of the selected nodes.

    ``base`` is the loop that they are inside of and that is not selected itself; None where they
    are outside of all loops.
    """

    ids: frozenset[str]
    base: str | None


def select(graph: Graph, wanted: Sequence[str], field: str) -> Selection:
    """The selection of the nodes ``wanted``, which the caller has named in ``field``.

    Raises Invalid for ids that are no nodes, and for nodes that are not connected; Conflict where
    there is nothing but remarks.
    """
    if unknown := [id for id in wanted if id not in graph.nodes]:
        message = f"no nodes of the definition: {_listed(unknown)}"
        raise Invalid(f"{field}: {message}", details={field: [message]})
    chosen = _with_bodies(graph, dict.fromkeys(wanted))
    lost = _out_of_reach(graph, chosen, wanted[0])
    if lost:
        message = f"not connected with '{wanted[0]}' by edges inside of the selection: " + _listed(
            lost
        )
        raise Invalid(f"{field}: {message}", code="not_connected", details={field: [message]})
    if all(_is_remark(graph, id) for id in chosen):
        raise Conflict("the selection has no node that could run", code="nothing_to_run")
    parents = (graph.nodes[id].parent_id for id in chosen)
    base = next(parent for parent in parents if parent is None or parent not in chosen)
    return Selection(chosen, base)


def _with_bodies(graph: Graph, wanted: dict[str, None]) -> frozenset[str]:
    inside: dict[str, list[str]] = {}
    for id, node in graph.nodes.items():
        parent = node.parent_id
        while parent is not None:
            inside.setdefault(parent, []).append(id)
            parent = graph.nodes[parent].parent_id
    chosen = set(wanted)
    for id in wanted:
        below = inside.get(id, ())
        if not any(one in wanted for one in below):
            chosen.update(below)
    return frozenset(chosen)


def _out_of_reach(graph: Graph, chosen: frozenset[str], first: str) -> list[str]:
    """The selected nodes to which no way leads from ``first``, whatever way the edges point."""
    near: dict[str, list[str]] = {id: [] for id in chosen}
    for id in chosen:
        ends = [edge.target for edge in graph.outgoing[id]]
        parent = graph.nodes[id].parent_id
        for other in ends if parent is None else [*ends, parent]:
            if other in chosen:
                near[id].append(other)
                near[other].append(id)
    reached, pending = {first}, [first]
    while pending:
        for other in near[pending.pop()]:
            if other not in reached:
                reached.add(other)
                pending.append(other)
    return [id for id in graph.nodes if id in chosen and id not in reached]


def _is_remark(graph: Graph, id: str) -> bool:
    if graph.nodes[id].kind != "note":
        return False
    return not (graph.incoming[id] or graph.outgoing[id])


def _listed(ids: Iterable[str]) -> str:
    told = [f"'{id[:128]}'" for id in dict.fromkeys(ids)]
    more = len(told) - _SHOWN
    return ", ".join(told[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
