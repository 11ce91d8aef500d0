"""What an expression of a node may name: whether that exists, and can be there when it is read."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from app.domain.graph import Graph, Node
from app.domain.progress import has_error_edge

Path = tuple[str, ...]  # such as ("steps", "fetch", "output", "total")

_TRIGGER = ("input", "type")
_RUN = ("id", "metronomeId", "versionId", "attempt")
_LOOP = ("index", "count", "item", "items", "previous", "outer")
_STEP = ("output", "error")
_ALWAYS = ("trigger", "steps", "run")
_SHOWN = 60  # characters of a name in a message
_LOOKED_AT = 200  # names in which one that is like another is looked for
_NAMED = 8  # names that are told where none is like it
_HINTS = 200  # faults of a workflow for which that is done: it takes long


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a path."""

    level: Literal["error", "warning"]
    code: str
    message: str


class Names:
    """The names of one workflow, seen from each of its nodes."""

    def __init__(self, graph: Graph, outputs: Mapping[str, frozenset[str] | None]) -> None:
        """``outputs`` has by kind the fields of its output; None where it may have any."""
        self._graph = graph
        self._outputs = outputs
        self._keys = {n.output_key: n for n in graph.nodes.values() if n.output_key}
        self._bits = {id: 1 << node.index for id, node in graph.nodes.items()}
        self._before = _ancestors(graph, self._bits)
        self._seen: dict[tuple[str, bool], int] = {}
        self._hints = _HINTS

    def fault(self, path: Path, node: Node, inside: bool = False) -> Fault | None:
        """What is wrong with a path that ``node`` reads; None where nothing is.

        ``inside`` is for what a loop reads after an iteration: it sees what its nodes see.
        """
        head, rest = path[0], path[1:]
        if head == "steps":
            return self._step(rest, node, inside) if rest else None
        if head == "trigger":
            return self._one_of("trigger", rest, _TRIGGER)
        if head == "run":
            return self._one_of("run", rest, _RUN)
        if head == "loop":
            return self._loop(rest, len(self._around(node)) + inside)
        if head == "inbound":
            return self._inbound(rest, node)
        if (named := self._keys.get(head)) is not None:
            return self._reach(named, f"'{head}'", node, inside) or self._output(named, rest)
        known = [*_ALWAYS, *self._keys, *(("loop",) if node.parent_id or inside else ())]
        return self._unknown(f"There is nothing called '{_short(head)}'", head, known)

    def _step(self, rest: Path, node: Node, inside: bool) -> Fault | None:
        named = self._graph.nodes.get(rest[0])
        if named is None:
            told = f"There is no node '{_short(rest[0])}'"
            return self._unknown(told, rest[0], self._graph.nodes, code="unknown_step")
        fault = self._reach(named, f"The step '{named.id}'", node, inside)
        if fault or len(rest) == 1:
            return fault
        if rest[1] == "output":
            return self._output(named, rest[2:])
        if rest[1] == "error" and not has_error_edge(self._graph, named.id):
            message = f"No edge of the handle error leaves '{named.id}': its error is never seen."
            return Fault("warning", "no_error_edge", message)
        return self._one_of(f"steps.{named.id}", rest[1:], _STEP)

    def _reach(self, named: Node, what: str, node: Node, inside: bool) -> Fault | None:
        """Why what a node has answered can't be there when another one reads it."""
        if self._visible(node.id, inside) & self._bits[named.id]:
            return None
        around = self._around(node) if not inside else {*self._around(node), node.id}
        if named.id == node.id or named.id in around:
            why = "has not ended by then"
        elif named.parent_id is not None and named.parent_id not in around:
            why = f"is inside of the loop '{named.parent_id}': from outside, use the loop's output"
        else:
            why = f"may not have run by then: no way leads from it to '{node.id}'"
        return Fault("error", "step_not_before", f"{what} {why}.")

    def _visible(self, id: str, inside: bool) -> int:
        """The nodes whose output an expression of a node may find, as bits."""
        known = self._seen.get((id, inside))
        if known is None:
            parent = self._graph.nodes[id].parent_id
            known = self._before[id]
            if parent is not None:
                known |= self._visible(parent, False)
            if inside:
                for one in self._graph.body(id).nodes:
                    known |= self._bits[one]
            self._seen[id, inside] = known
        return known

    def _around(self, node: Node) -> list[str]:
        """The loops around a node, the nearest first."""
        found = []
        while node.parent_id is not None:
            found.append(node.parent_id)
            node = self._graph.nodes[node.parent_id]
        return found

    def _output(self, named: Node, rest: Path) -> Fault | None:
        fields = self._outputs.get(named.kind)
        if not rest or fields is None or rest[0] in fields:
            return None
        told = f"The output of '{named.id}', a node of the kind {named.kind}, has no"
        return self._unknown(
            f"{told} '{_short(rest[0])}'", rest[0], fields, code="unknown_output", level="warning"
        )

    def _loop(self, rest: Path, depth: int) -> Fault | None:
        if depth == 0:
            message = "There is no 'loop' here: the node is inside of none."
            return Fault("error", "not_in_loop", message)
        while rest[:1] == ("outer",) and len(rest) > 1:
            depth, rest = depth - 1, rest[1:]
            if depth == 0:
                message = "There is no 'loop.outer' here: no other loop is around."
                return Fault("error", "not_in_loop", message)
        return self._one_of("loop", rest, _LOOP)

    def _inbound(self, rest: Path, node: Node) -> Fault | None:
        if node.kind != "end":
            return Fault("error", "unknown_name", "Only an end node has 'inbound'.")
        sources = [edge.source for edge in self._graph.incoming[node.id]]
        return self._one_of("inbound", rest, sources)

    def _one_of(self, of: str, rest: Path, known: Iterable[str]) -> Fault | None:
        names = list(known)
        if not rest or rest[0] in names:
            return None
        return self._unknown(f"'{of}' has no '{_short(rest[0])}'", rest[0], names)

    def _unknown(
        self,
        told: str,
        name: str,
        known: Iterable[str],
        *,
        code: str = "unknown_name",
        level: Literal["error", "warning"] = "error",
    ) -> Fault:
        names = list(itertools.islice(known, _LOOKED_AT))
        self._hints -= 1
        close = difflib.get_close_matches(name[:_SHOWN], names, 1) if self._hints >= 0 else []
        if close:
            hint = f"did you mean '{_short(close[0])}'?"
        elif names:
            more = ", ..." if len(names) > _NAMED else ""
            hint = f"there are {', '.join(map(_short, names[:_NAMED]))}{more}."
        else:
            hint = "there is none."
        return Fault(level, code, f"{told}: {hint}")


def _ancestors(graph: Graph, bits: Mapping[str, int]) -> dict[str, int]:
    """For each node those from which a way leads to it, as bits: a thousand of them cost little."""
    found: dict[str, int] = {}
    left = {id: len(edges) for id, edges in graph.incoming.items()}
    free = [id for id, count in left.items() if count == 0]
    before = dict.fromkeys(graph.nodes, 0)
    while free:
        id = free.pop()
        found[id] = before[id]
        for edge in graph.outgoing[id]:
            before[edge.target] |= before[id] | bits[id]
            left[edge.target] -= 1
            if left[edge.target] == 0:
                free.append(edge.target)
    return found


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
