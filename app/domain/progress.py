"""Where a run stands in its graph: which node may start next, which are passed over.

A node runs once, when all its incoming edges are decided and at least one was taken; it is skipped
when none was. Ready nodes go in the order of the definition, whatever order their predecessors
ended in, so that the same run always takes the same way.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator

from app.domain.graph import FIXTURE, Edge, Graph, Node
from app.domain.lifecycle import SKIPPED
from app.domain.trigger_rows import MANUAL, type_of

ERROR_HANDLE = "error"
APPROVED = "approved"


class Progress:
    """The decided and undecided edges of one run of a graph: the top, or a loop's body once."""

    def __init__(self, graph: Graph, entries: frozenset[str]) -> None:
        """``entries`` are the nodes at which it begins."""
        self._graph = graph
        self._undecided = {node: len(edges) for node, edges in graph.incoming.items()}
        self._taken = dict.fromkeys(graph.nodes, 0)
        self._ready: list[tuple[int, str]] = []  # sorted
        self._skipped: list[str] = []
        self._entries = entries
        for node in graph.nodes.values():
            if node.id in self._entries:
                insort(self._ready, (node.index, node.id))
            elif not graph.incoming[node.id] and not _is_remark(graph, node):
                self._skip(node.id)

    def ready(self) -> list[str]:
        """The nodes that may start now, in the order in which they are to start."""
        return list(self.each_ready())

    def each_ready(self) -> Iterator[str]:
        """The same one by one, for those who want the first: there may be a thousand."""
        return (node for _, node in self._ready)

    def is_over(self) -> bool:
        """Whether no node may start now or later."""
        return not self._ready

    def settle(self, node_id: str, branch: str | None) -> None:
        """A node has ended: decide its leaving edges.

        ``branch`` is what its outcome named, or None; ``error`` where it has failed for good.
        """
        self._leave_ready(node_id)
        node = self._graph.nodes[node_id]
        for edge in self._graph.outgoing[node_id]:
            self._decide(edge, takes(node, edge, branch))

    def fail(self, node_id: str) -> None:
        """A node has failed for good: only its error edges are taken."""
        self.settle(node_id, ERROR_HANDLE)

    def has_skipped(self) -> bool:
        """Whether ``take_skipped`` would have any."""
        return bool(self._skipped)

    def take_skipped(self) -> list[str]:
        """The nodes that have been found to be skipped since the last call, in order."""
        skipped, self._skipped = self._skipped, []
        return skipped

    def _leave_ready(self, node_id: str) -> None:
        entry = (self._graph.nodes[node_id].index, node_id)
        place = bisect_left(self._ready, entry)
        if self._ready[place : place + 1] == [entry]:
            del self._ready[place]

    def _skip(self, node_id: str) -> None:
        pending = [node_id]
        while pending:  # a long untaken branch must not be a deep recursion
            skipped = pending.pop()
            self._skipped.append(skipped)
            for edge in self._graph.outgoing[skipped]:
                if self._count(edge, taken=False):
                    pending.append(edge.target)

    def _decide(self, edge: Edge, taken: bool) -> None:
        if self._count(edge, taken=taken):
            self._skip(edge.target)

    def _count(self, edge: Edge, *, taken: bool) -> bool:
        """Count a decided edge; True where its target is now to be skipped."""
        target = edge.target
        self._undecided[target] -= 1
        self._taken[target] += taken
        if self._undecided[target] or target in self._entries:  # an entry waits for no edge
            return False
        if not self._taken[target]:
            return True
        insort(self._ready, (self._graph.nodes[target].index, target))
        return False


def takes(node: Node, edge: Edge, branch: str | None) -> bool:
    """Whether ``edge`` is taken when ``node`` has ended with ``branch``.

    Without a branch every edge is taken, and one without a handle always. The error edges are taken
    instead of all others. An approval's edge without a handle is that of ``approved``: nobody means
    it to be taken after a rejection.
    """
    handle = edge.source_handle
    if ERROR_HANDLE in (branch, handle):
        return handle == branch
    if handle is None and node.kind == "approval":
        handle = APPROVED
    return branch is None or handle in (None, branch)


def has_error_edge(graph: Graph, node_id: str) -> bool:
    """Whether a failure of the node is caught by an edge of the handle ``error``."""
    return any(edge.source_handle == ERROR_HANDLE for edge in graph.outgoing[node_id])


def entry_nodes(graph: Graph, trigger_type: str, named: Collection[str] = ()) -> frozenset[str]:
    """The nodes at which a run begins.

    These are the triggers that are ``named``, as far as they are there; else those of the run's own
    type; else the manual ones; else all triggers. A graph without a trigger begins at the nodes to
    which no edge leads (notes are no beginning). What stands in for a node in a test is a beginning
    in any case.
    """
    triggers = [node for node in graph.nodes.values() if node.kind == "trigger"]
    if not triggers:
        return frozenset(node.id for node in _roots(graph))
    chosen = [node for node in triggers if node.id in named] or of_type(triggers, trigger_type)
    entries = {node.id for node in chosen}
    return frozenset(entries.union(node.id for node in _roots(graph) if node.kind == FIXTURE))


def of_type(triggers: Iterable[Node], trigger_type: str) -> list[Node]:
    """The triggers at which a run of that type begins: its own, else the manual ones, else all."""
    every = list(triggers)
    for wanted in (trigger_type, MANUAL):
        matching = [node for node in every if type_of(node) == wanted]
        if matching:
            return matching
    return every


def body_entries(graph: Graph) -> frozenset[str]:
    """The nodes at which each iteration of a loop begins: those to which no edge of its body leads.

    Notes are no beginning.
    """
    return frozenset(node.id for node in _roots(graph))


def _is_remark(graph: Graph, node: Node) -> bool:
    """Whether the node is a note beside the graph; one on a path is a node as any other."""
    return node.kind == "note" and not graph.incoming[node.id] and not graph.outgoing[node.id]


def _roots(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes.values():
        if graph.incoming[node.id] or node.kind == "note":
            continue
        if node.kind != FIXTURE or not node.config.get(SKIPPED):
            yield node
