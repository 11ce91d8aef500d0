"""Finds the cycles of a graph, so that an error can name their nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_MOST = 10


def find_cycles(ids: Sequence[str], links: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Up to 10 cycles that share no node, each as its node ids in walking order.

    ``ids`` gives the order in which nodes are tried, ``links`` are (source, target) pairs.
    """
    after: dict[str, list[str]] = {id: [] for id in ids}
    before: dict[str, list[str]] = {id: [] for id in ids}
    for source, target in links:
        after[source].append(target)
        before[target].append(source)
    left = dict.fromkeys(ids)
    cycles: list[list[str]] = []
    while len(cycles) < _MOST:
        # Nodes without a way in or without a way out are on no cycle.
        _peel(left, before, after)
        _peel(left, after, before)
        if not left:
            break
        cycle = _walk(next(iter(left)), left, after)
        cycles.append(cycle)
        for id in cycle:
            del left[id]
    return cycles


def _peel(
    left: dict[str, None], inward: dict[str, list[str]], outward: dict[str, list[str]]
) -> None:
    count = {id: sum(other in left for other in inward[id]) for id in left}
    free = [id for id, number in count.items() if number == 0]
    while free:
        id = free.pop()
        del left[id]
        for other in outward[id]:
            if other in left:
                count[other] -= 1
                if count[other] == 0:
                    free.append(other)


def _walk(start: str, left: dict[str, None], after: dict[str, list[str]]) -> list[str]:
    """Go from node to node until one comes twice; all that is left has a way on."""
    seen: dict[str, int] = {}
    path: list[str] = []
    id = start
    while id not in seen:
        seen[id] = len(path)
        path.append(id)
        id = next(other for other in after[id] if other in left)
    return path[seen[id] :]
