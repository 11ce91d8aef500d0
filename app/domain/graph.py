"""A workflow definition as a graph of nodes and edges.

``check_shape`` says whether a definition is sound; ``parse`` reads one that is. A loop has a body:
the nodes whose ``parentId`` it is. No edge leads across its border, so each body is a graph of its
own, and so is the top, of which the nodes inside of loops are no part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.domain.forms import body_of, config_of
from app.domain.issues import Issue
from app.domain.nesting import is_drawing
from app.domain.shape import check_shape

__all__ = ["FIXTURE", "Edge", "Graph", "Issue", "Node", "check_shape", "parse"]

# The kind of what stands in for a node, where a part of a workflow is tested: see slices.py.
FIXTURE: Final = "fixture"


@dataclass(frozen=True, slots=True)
class Node:
    """One node; ``index`` is its place in the definition, which orders everything."""

    id: str
    kind: str
    subtype: str | None
    label: str | None
    config: Mapping[str, Any]
    output_key: str | None
    parent_id: str | None
    index: int


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge; ``source_handle`` None means that it leaves by no named handle."""

    id: str | None
    source: str
    target: str
    source_handle: str | None


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes by id in definition order; edges by the id of the node that they enter or leave.

    Edges between a loop and its own body are drawings, and not among them. Nothing changes after
    ``parse``, so threads may share a graph.
    """

    nodes: Mapping[str, Node]
    incoming: Mapping[str, tuple[Edge, ...]]
    outgoing: Mapping[str, tuple[Edge, ...]]
    bodies: Mapping[str | None, Graph] = field(repr=False, compare=False)

    def body(self, parent_id: str | None) -> Graph:
        """The nodes inside of a loop and the edges among them; None: those outside of all loops.

        What is inside of a loop in there is not part of it. Raises KeyError where there is no such
        loop; one that nothing is inside of has an empty body.
        """
        return self.bodies[parent_id]


def parse(definition: Mapping[str, Any]) -> Graph:
    """The graph of a definition that ``check_shape`` found no fault in."""
    nodes = [_node(raw, index) for index, raw in enumerate(definition.get("nodes", ()))]
    parents = {node.id: node.parent_id for node in nodes}
    edges = [
        Edge(raw.get("id"), raw["source"], raw["target"], raw.get("sourceHandle") or None)
        for raw in definition.get("edges", ())
        if not is_drawing(parents, raw["source"], raw["target"])
    ]
    levels: dict[str | None, tuple[list[Node], list[Edge]]] = {None: ([], [])}
    levels |= {node.id: ([], []) for node in nodes if node.kind == "loop"}
    for node in nodes:
        levels[node.parent_id][0].append(node)
    for edge in edges:
        levels[parents[edge.source]][1].append(edge)
    bodies: dict[str | None, Graph] = {}
    for parent_id, (inside, among) in levels.items():
        bodies[parent_id] = _graph(inside, among, bodies)
    return _graph(nodes, edges, bodies)


def _node(raw: Mapping[str, Any], index: int) -> Node:
    body = body_of(raw)
    config = config_of(body)
    return Node(
        id=raw["id"],
        kind=body["kind"],
        subtype=body.get("subtype"),
        label=body.get("label"),
        config=config,
        output_key=config.get("outputKey") or None,
        parent_id=raw.get("parentId"),
        index=index,
    )


def _graph(
    nodes: Iterable[Node], edges: Iterable[Edge], bodies: Mapping[str | None, Graph]
) -> Graph:
    by_id = {node.id: node for node in nodes}
    incoming: dict[str, list[Edge]] = {id: [] for id in by_id}
    outgoing: dict[str, list[Edge]] = {id: [] for id in by_id}
    for edge in edges:
        incoming[edge.target].append(edge)
        outgoing[edge.source].append(edge)
    return Graph(
        by_id,
        {id: tuple(entering) for id, entering in incoming.items()},
        {id: tuple(leaving) for id, leaving in outgoing.items()},
        bodies,
    )
