"""Whether a definition is sound: every fault of its nodes, edges and configs, none as exception.

The API saves nothing that has an issue here, so that the executor can rely on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.domain.cycles import find_cycles
from app.domain.errors import ValueRefused
from app.domain.issues import Issue, Issues, id_fault
from app.domain.jsonvalue import check_json
from app.domain.nesting import Nesting
from app.domain.shape_edges import EdgeCheck
from app.domain.shape_nodes import KindLike, NodeCheck

MAX_NODES = 1_000
MAX_EDGES = 5_000
MAX_BYTES = 1_000_000


def check_shape(definition: object, kinds: Mapping[str, KindLike]) -> list[Issue]:
    """Every fault of ``definition``, at most 100, in definition order; [] where it is sound.

    ``kinds`` maps the kinds that can run to their handlers. Takes any JSON value, and never raises.
    """
    try:
        check_json(definition, "definition", max_bytes=MAX_BYTES)
    except ValueRefused as error:
        field = next(iter(error.details or ()), "definition")
        return [Issue("error", error.code, error.message, field)]
    if not isinstance(definition, dict):
        return [Issue("error", "invalid_type", "The definition must be an object.", "definition")]
    issues = Issues()
    nodes = _list(definition, "nodes", MAX_NODES, issues)
    edges = _list(definition, "edges", MAX_EDGES, issues) or []
    if nodes is not None:  # else every edge would seem to dangle
        _check(nodes, edges, kinds, issues)
    return issues.found


def _check(
    nodes: list[Any], edges: list[Any], kinds: Mapping[str, KindLike], issues: Issues
) -> None:
    places = _places(nodes, issues)
    nesting = Nesting(nodes, places)
    of_edges = EdgeCheck(nesting, issues)
    for index, raw in enumerate(edges):
        of_edges.check(raw, index)
    of_nodes = NodeCheck(kinds, issues)
    for index, raw in enumerate(nodes):
        if issues.full:
            break
        if isinstance(raw, dict):
            of_nodes.check(raw, index, of_edges.handles)
    nesting.check(issues)
    for cycle in find_cycles(list(places), of_edges.links):
        names = " -> ".join([*cycle[:20], "..."] if len(cycle) > 20 else [*cycle, cycle[0]])
        field = f"definition.nodes.{places[cycle[0]]}"
        issues.add("cycle", f"The nodes form a cycle: {names}.", field, node_id=cycle[0])


def _list(definition: dict[str, Any], name: str, most: int, issues: Issues) -> list[Any] | None:
    raw = definition.get(name, [])
    if not isinstance(raw, list):
        issues.add("invalid_type", f"{name} must be a list.", f"definition.{name}")
        return None
    if len(raw) > most:
        message = f"There are {len(raw):,} {name}; {most:,} is the most."
        issues.add(f"too_many_{name}", message, f"definition.{name}")
        return None
    return raw


def _places(nodes: list[Any], issues: Issues) -> dict[str, int]:
    """The index of each good id."""
    places: dict[str, int] = {}
    for index, raw in enumerate(nodes):
        field = f"definition.nodes.{index}"
        if not isinstance(raw, dict):
            issues.add("invalid_type", "A node must be an object.", field)
        elif raw.get("id") is None:
            issues.add("missing_id", "The node has no id.", f"{field}.id")
        elif fault := id_fault(raw["id"]):
            issues.add("invalid_id", f"The node's id {fault}.", f"{field}.id")
        elif raw["id"] in places:
            message = f"The node id '{raw['id']}' is used twice."
            issues.add("duplicate_id", message, f"{field}.id", node_id=raw["id"])
        else:
            places[raw["id"]] = index
    return places
