"""What the selected nodes of a test read of the nodes around them, of the loop, and of the input.

A node sees what is on its own level and on those around it, but not the loops that it is inside
of: these have not ended while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.domain.fixtures import Fixture
from app.domain.graph import Graph, Node
from app.domain.names import Path
from app.domain.selection import Selection
from app.domain.sources import Schema, expressions


class KindLike(Protocol):
    """What a node kind tells of its config."""

    @property
    def config_schema(self) -> Schema:
        """What its config may hold, as JSON Schema: where expressions are."""


@dataclass(slots=True)
class Needs:
    """Paths that are read: of nodes outside of the selection below ``steps.<id>``, by id; of the
    loop around it below ``loop``; and of the input below ``trigger.input``."""

    steps: dict[str, set[Path]] = field(default_factory=dict)
    loop: set[Path] = field(default_factory=set)
    input: set[Path] = field(default_factory=set)
    about_loop: bool = False  # whether ``loop`` is read at all


def needs_of(
    graph: Graph, selection: Selection, fixture: Fixture, kinds: Mapping[str, KindLike]
) -> Needs:
    """What the selected nodes read of what is not selected; ``kinds`` are the node kinds by name.

    An expression may name what it only reads in some cases: that counts as read.
    """
    keys = {node.output_key: id for id, node in graph.nodes.items() if node.output_key}
    needs = Needs()
    for id in graph.nodes:
        if id in selection.ids:
            for path, level in _reads(graph, graph.nodes[id], kinds):
                _note(_Place(graph, selection, level), path, keys, fixture, needs)
    return needs


@dataclass(frozen=True, slots=True)
class _Place:
    """A level of the graph from which something is read."""

    graph: Graph
    selection: Selection
    level: str | None

    def loops(self) -> list[str]:
        """The loops around, from the innermost on."""
        found, level = [], self.level
        while level is not None:
            found.append(level)
            level = self.graph.nodes[level].parent_id
        return found

    def sees(self, id: str) -> bool:
        """Whether a node outside of the selection can be read from here."""
        node, loops = self.graph.nodes.get(id), self.loops()
        if node is None or id in self.selection.ids or id in loops:
            return False
        return node.parent_id is None or node.parent_id in loops

    def of_loop(self, path: Path) -> Path | None:
        """The part of a path ``loop...`` that the loop around the selection answers, or None."""
        base = self.selection.base
        if base is None:
            return None
        outwards = self.loops().index(base)
        if path[1 : 1 + outwards] != ("outer",) * outwards:
            return None
        return path[1 + outwards :]


def leads_somewhere(path: Path, value: Any) -> bool:
    """Whether there is something in the JSON ``value`` where ``path`` leads."""
    for key in path:
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and _is_index(key) and -len(value) <= int(key) < len(value):
            value = value[int(key)]
        else:
            return False
    return True


def _is_index(key: str) -> bool:
    digits = key.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 10


def _reads(
    graph: Graph, node: Node, kinds: Mapping[str, KindLike]
) -> Iterator[tuple[Path, str | None]]:
    """Each path that a node reads, and the level from which it does."""
    kind = kinds.get(node.kind)
    for source in expressions(kind.config_schema, node.config, "config") if kind else ():
        for path in source.expression.names():
            yield path, node.id if source.inside else node.parent_id
    if node.kind == "end" and node.config.get("output") is None:
        for edge in graph.incoming[node.id]:
            yield ("inbound", edge.source), node.parent_id


def _note(
    place: _Place, path: Path, keys: Mapping[str, str], fixture: Fixture, needs: Needs
) -> None:
    head = path[0]
    if head == "trigger":
        if path[1:2] == ("input",):
            needs.input.add(path[2:])
    elif head == "loop":
        if (rest := place.of_loop(path)) is not None:
            needs.about_loop = True
            needs.loop.add(rest)
    elif head == "steps" and len(path) == 1:  # which one is known when it is evaluated
        for id in fixture.steps:
            if place.sees(id):
                needs.steps.setdefault(id, set())
    else:
        read, rest = _of_step(path, keys)
        if read is not None and place.sees(read):
            needs.steps.setdefault(read, set()).add(rest)


def _of_step(path: Path, keys: Mapping[str, str]) -> tuple[str | None, Path]:
    """The node that a path reads, and the path below ``steps.<id>``."""
    if path[0] == "steps":
        return path[1], path[2:]
    if path[0] == "inbound" and len(path) > 1:
        return path[1], ("output", *path[2:])
    return keys.get(path[0]), ("output", *path[1:])
