"""A part of a workflow as a workflow of its own, so that it can be tested alone.

The derived definition has the selected nodes and the edges between them, and stand-ins for what
they need of the nodes outside: those that an edge leads from into the part, those that lie on a
way from one selected node to another, and those whose outputs are read. A stand-in ends as the
test's fixture says and does nothing, so no side effect comes from outside of the selection.

The nodes inside of a loop that is not selected itself run once, and see the fixture's ``loop``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.errors import Invalid
from app.domain.fixtures import Fixture, StandIn, around, handle_of, stand_in
from app.domain.graph import Graph, Node, parse
from app.domain.names import Path
from app.domain.needs import KindLike, Needs, leads_somewhere, needs_of
from app.domain.nesting import is_drawing
from app.domain.progress import of_type
from app.domain.selection import Selection, select


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that the selected nodes read, or that decides their way, and nobody has given.

    ``field`` is where it could be given; ``reads`` are the paths that lead nowhere without it, or
    the branches that there are.
    """

    field: str
    node_id: str | None
    reads: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Slice:
    """What a test runs: the selected nodes, what stands in for others, and the definition.

    ``unused`` holds the fields of the fixture that have no effect.
    """

    nodes: tuple[Node, ...]
    stand_ins: tuple[StandIn, ...]
    missing: tuple[Missing, ...]
    unused: tuple[str, ...]
    definition: dict[str, Any]


def cut(
    definition: Mapping[str, Any],
    wanted: Sequence[str],
    fixture: Fixture,
    *,
    kinds: Mapping[str, KindLike],
    trigger_type: str,
    field: str = "selection.nodeIds",
) -> Slice:
    """The part of a sound ``definition`` that the nodes ``wanted`` are; ``field`` named them.

    ``kinds`` are the node kinds by name: their schemas say what is an expression.
    Raises Invalid for a selection that is not connected, and for a fixture that speaks of nodes or
    branches that there are not; Conflict where nothing would run.
    """
    graph = parse(definition)
    selection = select(graph, wanted, field)
    _check_ids(graph, fixture)
    needs = needs_of(graph, selection, fixture, kinds)
    surroundings = _surroundings(graph, selection)
    stand_ins = _stand_ins(graph, selection, surroundings, needs, fixture, trigger_type)
    return Slice(
        nodes=tuple(node for id, node in graph.nodes.items() if id in selection.ids),
        stand_ins=tuple(stand_ins.values()),
        missing=tuple(_missing(stand_ins, selection, needs, fixture)),
        unused=tuple(_unused(stand_ins, selection, fixture)),
        definition={
            **definition,
            "nodes": _nodes(definition, selection, stand_ins),
            "edges": _edges(definition, graph, selection, surroundings, stand_ins),
        },
    )


def _check_ids(graph: Graph, fixture: Fixture) -> None:
    for name in ("steps", "branches", "errors"):
        for id in getattr(fixture, name):
            if id not in graph.nodes:
                where = f"fixture.{name}.{id[:128]}"
                message = "is no node of the definition"
                raise Invalid(f"{where} {message}", details={where: [message]})


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """``before``: those from which an edge leads in; ``between``: on a way out and in again."""

    before: frozenset[str]
    between: frozenset[str]


def _surroundings(graph: Graph, selection: Selection) -> _Surroundings:
    before: set[str] = set()
    between: set[str] = set()
    for level in (selection.base, *(id for id in selection.ids if id in graph.bodies)):
        body = graph.body(level)
        inside = {id for id in body.nodes if id in selection.ids}
        leads_out = {id: [edge.target for edge in body.outgoing[id]] for id in body.nodes}
        leads_in = {id: [edge.source for edge in body.incoming[id]] for id in body.nodes}
        kept = inside | (_reach(inside, leads_out) & _reach(inside, leads_in))
        between |= kept - inside
        before |= {source for id in kept for source in leads_in[id]} - kept
    return _Surroundings(frozenset(before), frozenset(between))


def _reach(start: Iterable[str], ways: Mapping[str, Sequence[str]]) -> set[str]:
    reached: set[str] = set()
    pending = list(start)
    while pending:
        for id in ways[pending.pop()]:
            if id not in reached:
                reached.add(id)
                pending.append(id)
    return reached


def _stand_ins(
    graph: Graph,
    selection: Selection,
    surroundings: _Surroundings,
    needs: Needs,
    fixture: Fixture,
    trigger_type: str,
) -> dict[str, StandIn]:
    """The stand-ins by id: what only answers comes first, so that it has ended before the rest."""
    before, between = surroundings.before, surroundings.between
    kept = selection.ids | between
    wanted = before | between | needs.steps.keys()
    triggers = [n for id, n in graph.nodes.items() if n.kind == "trigger" and id in kept | before]
    begin = {node.id for node in of_type(triggers, trigger_type)}
    found: dict[str, StandIn] = {}
    base = selection.base
    if base is not None and (needs.about_loop or fixture.loop is not None):
        found[base] = around(graph.nodes[base], fixture)
    for id, node in graph.nodes.items():
        if id in wanted:
            parent = node.parent_id
            found[id] = stand_in(
                node,
                [edge.source_handle for edge in graph.outgoing[id] if edge.target in kept],
                fixture,
                inside=parent if parent in selection.ids else None,
                idle=node.kind == "trigger" and id in before and id not in begin,
            )
    return dict(sorted(found.items(), key=lambda item: item[0] in between))


def _nodes(
    definition: Mapping[str, Any], selection: Selection, stand_ins: Mapping[str, StandIn]
) -> list[dict[str, Any]]:
    raws = {raw["id"]: raw for raw in definition.get("nodes", ())}
    nodes = [found.raw(raws[id]) for id, found in stand_ins.items()]
    for id, raw in raws.items():
        if id not in selection.ids:
            continue
        lifted = raw.get("parentId") is not None and raw["parentId"] not in selection.ids
        without = ("parentId", "extent") if lifted else ()
        nodes.append({name: value for name, value in raw.items() if name not in without})
    return nodes


def _edges(
    definition: Mapping[str, Any],
    graph: Graph,
    selection: Selection,
    surroundings: _Surroundings,
    stand_ins: Mapping[str, StandIn],
) -> list[dict[str, Any]]:
    parents = {id: node.parent_id for id, node in graph.nodes.items()}
    there = selection.ids | stand_ins.keys()
    kept = selection.ids | surroundings.between
    edges: list[dict[str, Any]] = []
    for raw in definition.get("edges", ()):
        source, target = raw["source"], raw["target"]
        if is_drawing(parents, source, target):
            loop = source if parents[target] == source else target
            if loop in selection.ids and source in there and target in there:
                edges.append(raw)
            continue
        if target not in kept or source not in there:
            continue
        if target in stand_ins and stand_ins[target].skipped:
            continue
        if source in stand_ins:
            handle = handle_of(graph.nodes[source], raw.get("sourceHandle") or None)
            raw = raw if handle is None else {**raw, "sourceHandle": handle}
        edges.append(raw)
    return edges


def _missing(
    stand_ins: Mapping[str, StandIn], selection: Selection, needs: Needs, fixture: Fixture
) -> Iterable[Missing]:
    if lacking := _lacking(needs.input, fixture.input):
        reads = _told("trigger.input", lacking)
        yield Missing("input", None, reads, f"The input has no {', '.join(reads)}.")
    for id, found in stand_ins.items():
        if id == selection.base:
            about, prefix, field = found.output, "loop", "fixture.loop"
            lacking = [path for path in sorted(needs.loop) if not _given(path, about, fixture)]
        elif found.skipped or (found.node.kind == "trigger" and not found.given):
            continue
        else:
            told = {"output": found.output} | ({} if found.error is None else {"error": ""})
            prefix, field = _told("steps", [(id,)])[0], f"fixture.steps.{id}"
            lacking = _lacking(needs.steps.get(id, ()), told)
            if not (lacking or found.given or found.output) and needs.steps.get(id):
                lacking = sorted(needs.steps[id])
        if lacking:
            reads = _told(prefix, lacking)
            yield Missing(field, id, reads, f"The fixture has no {', '.join(reads)}.")
        if found.assumed:
            message = f"It is not told which branch is taken; '{found.branch}' is assumed."
            yield Missing(f"fixture.branches.{id}", id, found.assumed, message)


def _given(path: Path, about: Mapping[str, Any], fixture: Fixture) -> bool:
    """Whether a path below ``loop`` is answered by the fixture, and not only by a default."""
    if not path:
        return fixture.loop is not None
    known = {"index", "count", *(fixture.loop or ())}
    if "item" in known:
        known.add("items")
    return path[0] in known and leads_somewhere(path, about)


def _lacking(paths: Iterable[Path], value: Any) -> list[Path]:
    return [path for path in sorted(paths) if not leads_somewhere(path, value)]


def _told(prefix: str, paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(
        prefix + "".join(f".{key}" if key.isidentifier() else f"[{key!r}]" for key in path)
        for path in paths
    )


def _unused(
    stand_ins: Mapping[str, StandIn], selection: Selection, fixture: Fixture
) -> Iterable[str]:
    for name in ("steps", "branches", "errors"):
        yield from (f"fixture.{name}.{id}" for id in getattr(fixture, name) if id not in stand_ins)
    if fixture.loop is not None and selection.base is None:
        yield "fixture.loop"
