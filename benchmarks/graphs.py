"""Random workflows from a seed: nodes of every kind, in every place where a run can be stopped.

A workflow is a chain of parts, each with one way in and one way out: a node, a fork that is joined
again, a choice, a node with an error edge, or a loop whose body is such a chain. So whatever
branches a run takes, it can come to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

Config = dict[str, Any]
Part = tuple[str, str]  # the ids of its first and its last node

ITEMS = "trigger.input.items"  # what for_each goes through
LONG = 3600.0  # seconds of a sleep that only a cancel ends
_LOOPS = 2  # levels of them
_RETRY = {"maxAttempts": 3, "backoffSeconds": 0.05}
# How the connector takes a node: see connector.py. The first is for the first attempt, and so on.
_MANNERS = (
    (6, ["done"]),
    (8, ["later"]),
    (3, ["twice"]),
    (3, ["early"]),
    (4, ["stubborn"]),
    (4, ["slow"]),
    (3, ["beats"]),
    (2, ["gives up", "later"]),
    (2, ["gives up", "hangs", "done"]),
    (2, ["500", "drops", "later"]),
    (1, ["drops", "silent", "done"]),
    (1, ["garbage"]),
    (1, ["refuses"]),
    (1, ["422"]),
)


class Maker:
    """Makes definitions; ``nested`` are the ids of the workflows that nodes may run.

    ``marks`` is the file in which functions leave their marks, ``page`` the URL for http nodes.
    """

    def __init__(self, random: Random, marks: Path, page: str, nested: Sequence[str] = ()) -> None:
        self._random = random
        self._marks = str(marks)
        self._page = page
        self._nested = nested
        self._nodes: list[dict[str, Any]] = []
        self._edges: list[dict[str, Any]] = []

    def make(self, parts: int) -> dict[str, Any]:
        """A definition: a trigger, up to ``parts`` parts, and an end that is always reached."""
        self._nodes, self._edges = [], []
        last = self._node("trigger", {})
        first, out = self._chain(self._random.randint(2, parts), None, 0)
        self._edge(last, first)
        self._edge(out, self._node("end", {}))
        return {"nodes": self._nodes, "edges": self._edges}

    def _node(self, kind: str, config: Config, parent: str | None = None) -> str:
        made: dict[str, Any] = {"id": f"{kind}{len(self._nodes)}", "kind": kind, "config": config}
        if parent is not None:
            made["parentId"] = parent
        self._nodes.append(made)
        name: str = made["id"]
        return name

    def _edge(self, source: str, target: str, handle: str | None = None) -> None:
        edge = {"source": source, "target": target}
        self._edges.append({**edge, "sourceHandle": handle} if handle else edge)

    def _chain(self, parts: int, parent: str | None, level: int) -> Part:
        first, last = self._part(parent, level)
        for _ in range(parts - 1):
            begin, end = self._part(parent, level)
            self._edge(last, begin)
            last = end
        return first, last

    def _part(self, parent: str | None, level: int) -> Part:
        makers: list[tuple[float, Callable[[str | None, int], Part]]] = [
            (12.0, self._single),
            (1.2, self._fork),
            (1.2, self._choice),
            (1.2, self._question),
            (1.2, self._caught),
        ]
        if level < _LOOPS:
            makers.append((1.6 if parent is None else 0.8, self._loop))
        (chosen,) = self._random.choices(
            [maker for _, maker in makers], [weight for weight, _ in makers]
        )
        return chosen(parent, level)

    # -- parts of several nodes

    def _fork(self, parent: str | None, level: int) -> Part:
        """Branches side by side: what waits in one holds nobody up in the other."""
        first = self._node("note", {}, parent)
        ends = []
        for _ in range(self._random.randint(2, 3)):
            begin, end = self._chain(self._random.randint(1, 2), parent, _LOOPS)
            self._edge(first, begin)
            ends.append(end)
        return first, self._join(ends, parent)

    def _choice(self, parent: str | None, level: int) -> Part:
        number = "trigger.input.n" if parent is None else "loop.index"
        condition = {"id": "yes", "expression": f"{number} % 2 == {self._random.randrange(2)}"}
        first = self._node("condition", {"conditions": [condition]}, parent)
        ends = []
        for handle in ("yes", "else"):
            begin, end = self._chain(1, parent, _LOOPS)
            self._edge(first, begin, handle)
            ends.append(end)
        return first, self._join(ends, parent)

    def _question(self, parent: str | None, level: int) -> Part:
        """An approval whose rejection leads on as well."""
        first = self._node("approval", self._approval(), parent)
        ends = []
        for handle in ("approved", "rejected", "error"):
            begin, end = self._single(parent, level)
            self._edge(first, begin, handle)
            ends.append(end)
        return first, self._join(ends, parent)

    def _caught(self, parent: str | None, level: int) -> Part:
        """A node that may fail for good, with an edge that leads on from there."""
        kinds = [self._broken, self._broken, self._remote, self._run, self._http]
        kind, config = self._random.choice(kinds)()
        first = self._node(kind, config, parent)
        after, _ = self._single(parent, level)
        self._edge(first, after, "error")
        last = self._join([after], parent)
        self._edge(first, last)
        return first, last

    def _loop(self, parent: str | None, level: int) -> Part:
        random = self._random
        config: Config = random.choice(
            [
                {"loopType": "fixed_count", "iterations": random.randint(1, 5)},
                {"loopType": "for_each", "inputBinding": ITEMS},
                {"loopType": "for_each", "inputBinding": ITEMS, "batchSize": 2},
                {"loopType": "until", "rule": f"loop.index >= {random.randint(0, 4)}"},
            ]
        )
        config = {**config, "maxIterations": 50}
        if random.random() < 0.3:
            config["retry"] = {"maxAttempts": 2, "backoffSeconds": 0.05}
        if late := random.random() < 0.15:
            config["timeoutMs"] = random.randint(500, 3000)
        first = self._node("loop", config, parent)
        if parent is None and random.random() < 0.15:
            config |= {"loopType": "fixed_count", "iterations": random.randint(20, 50)}
            self._node("note", {}, first)
        else:
            self._chain(random.randint(1, 3), first, level + 1)
        if not late and random.random() < 0.5:
            return first, first
        last = self._join([first], parent)
        self._edge(first, last, "error")
        return first, last

    def _join(self, ends: Sequence[str], parent: str | None) -> str:
        last = self._node("note", {}, parent)
        for end in ends:
            self._edge(end, last)
        return last

    # -- single nodes

    def _single(self, parent: str | None, level: int) -> Part:
        kinds: list[tuple[float, Callable[[], tuple[str, Config]]]] = [
            (3, lambda: ("note", {})),
            (2, lambda: ("transform", {"output": {"n": "{{ trigger.input.n }}"}})),
            (3, self._pure),
            (5, self._function),
            (4, self._unsafe),
            (2, self._failing),
            (3, self._delay),
            (5, self._remote),
            (1, self._http),
            (3, self._run),
            (1 if parent is None else 0.3, lambda: ("approval", self._approval())),
            (0.1, self._broken),
        ]
        (chosen,) = self._random.choices([make for _, make in kinds], [part for part, _ in kinds])
        name = self._node(*chosen(), parent)
        return name, name

    def _function(self) -> tuple[str, Config]:
        name = self._random.choice(("touch_file", "slow", "deaf"))
        return self._called(name, seconds=self._random.choice((0.0, 0.02, 0.2)))

    def _pure(self) -> tuple[str, Config]:
        payload = {"numbers": ["{{ trigger.input.n }}", 1]}
        return "function", {"functionName": "sums", "payload": payload}

    def _unsafe(self) -> tuple[str, Config]:
        return self._called("unsafe", seconds=self._random.choice((0.05, 0.3, 0.8)))

    def _failing(self) -> tuple[str, Config]:
        kind, config = self._called("fail_until", attempt=self._random.randint(2, 3))
        return kind, {**config, "retry": _RETRY}

    def _broken(self) -> tuple[str, Config]:
        return self._called("fail_until", attempt=1_000_000)

    def _called(self, name: str, **payload: Any) -> tuple[str, Config]:
        return "function", {"functionName": name, "payload": {"path": self._marks, **payload}}

    def _delay(self) -> tuple[str, Config]:
        seconds = self._random.choice((0.0, 0.05, 0.3, 0.9, 1.3, 2.0))
        return "delay", {"seconds": LONG if self._random.random() < 0.02 else seconds}

    def _http(self) -> tuple[str, Config]:
        config: Config = {"url": self._page, "timeoutMs": 2000, "retry": _RETRY}
        if self._random.random() < 0.6:
            config |= {"method": "POST", "body": {}, "idempotent": self._random.random() < 0.3}
        return "http", config

    def _remote(self) -> tuple[str, Config]:
        (manners,) = self._random.choices(
            [manners for _, manners in _MANNERS], [weight for weight, _ in _MANNERS]
        )
        seconds = self._random.choice((0.0, 0.1, 0.5, 1.5))
        config: Config = {"manners": manners, "seconds": seconds}
        if len(manners) > 1 or self._random.random() < 0.5:
            config["retry"] = _RETRY
        if self._random.random() < 0.1:
            config["timeoutMs"] = 1000
        return self._random.choice(("action", "firecrawl")), config

    def _run(self) -> tuple[str, Config]:
        """A nested run, where there are workflows for it."""
        if not self._nested:
            return self._function()
        given = {"n": "{{ trigger.input.n }}", "items": f"{{{{ {ITEMS} }}}}"}
        config: Config = {"workflowId": self._random.choice(self._nested), "input": given}
        if self._random.random() < 0.2:
            config["retry"] = {"maxAttempts": 2, "backoffSeconds": 0.05}
        if self._random.random() < 0.1:
            config["timeoutMs"] = self._random.randint(300, 2000)
        return "metronome", config

    def _approval(self) -> Config:
        if self._random.random() < 0.5:
            return {"title": "May it?"}
        deadline = self._random.choice((0.3, 1.0, 2.5))
        then = self._random.choice(("approve", "reject", "approve", "fail"))
        return {"deadlineSeconds": deadline, "onDeadline": then}


def family(
    random: Random, marks: Path, page: str, save: Callable[[str, dict[str, Any]], str]
) -> list[str]:
    """Workflows of three levels, each of which runs those below it; the ids of the upper two.

    ``save`` keeps a definition under a name, and answers its id.
    """
    ids: list[list[str]] = []
    for level, (count, parts) in enumerate(((8, 3), (8, 4), (14, 6))):
        below = [name for lower in ids for name in lower]
        maker = Maker(random, marks, page, below)
        ids.append([save(f"level {level}, {n}", maker.make(parts)) for n in range(count)])
    return ids[1] + ids[2] * 2
