"""A workflow definition as a graph of nodes and edges.

Two node shapes are in use: ``{id, kind, config, ...}`` and that of visual builders,
``{id, position, data: {kind, config, ...}}``. ``check_shape`` says whether a definition is sound;
``parse`` reads one that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.shape import NOT_BUILT, Issue, check_shape, has_data

__all__ = ["NOT_BUILT", "Edge", "Graph", "Issue", "Node", "check_shape", "parse"]


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
    """Nodes by id in definition order; edges by the id of the node that they enter or leave."""

    nodes: Mapping[str, Node]
    incoming: Mapping[str, tuple[Edge, ...]]
    outgoing: Mapping[str, tuple[Edge, ...]]


def parse(definition: Mapping[str, Any]) -> Graph:
    """The graph of a definition that ``check_shape`` found no fault in."""
    nodes: dict[str, Node] = {}
    for index, raw in enumerate(definition.get("nodes", ())):
        body = raw["data"] if has_data(raw) else raw
        config = body.get("config") or {}
        nodes[raw["id"]] = Node(
            id=raw["id"],
            kind=body["kind"],
            subtype=body.get("subtype"),
            label=body.get("label"),
            config=config,
            output_key=config.get("outputKey") or None,
            parent_id=raw.get("parentId"),
            index=index,
        )
    incoming: dict[str, list[Edge]] = {id: [] for id in nodes}
    outgoing: dict[str, list[Edge]] = {id: [] for id in nodes}
    for raw in definition.get("edges", ()):
        edge = Edge(raw.get("id"), raw["source"], raw["target"], raw.get("sourceHandle"))
        incoming[edge.target].append(edge)
        outgoing[edge.source].append(edge)
    return Graph(
        nodes,
        {id: tuple(edges) for id, edges in incoming.items()},
        {id: tuple(edges) for id, edges in outgoing.items()},
    )
