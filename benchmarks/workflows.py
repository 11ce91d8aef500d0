"""Workflows of many fast nodes, of every kind that can be met in the middle by a cancel."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

Nodes = list[tuple[str, str, dict[str, Any]]]  # id, kind, config


def definition(nodes: Nodes, edges: str = "") -> dict[str, Any]:
    """A definition; ``edges`` such as ``a>b b>c:yes``, where there are none a chain."""
    pairs = edges.split() or [f"{one[0]}>{two[0]}" for one, two in pairwise(nodes)]
    made = []
    for number, pair in enumerate(pairs):
        ends, _, handle = pair.partition(":")
        source, _, target = ends.partition(">")
        edge = {"id": f"e{number}", "source": source, "target": target}
        made.append({**edge, "sourceHandle": handle} if handle else edge)
    shown = [{"id": name, "kind": kind, "config": config} for name, kind, config in nodes]
    return {"nodes": shown, "edges": made}


def all_of_them(marks: Path) -> dict[str, dict[str, Any]]:
    """Name to definition; the functions among the nodes leave a line in ``marks``."""
    return {
        "chain": _chain(),
        "branches": _branches(marks),
        "conditions": _conditions(),
        "delays": _delays(),
        "failing": _failing(),
        "functions": _functions(marks),
    }


def that_end(marks: Path) -> dict[str, dict[str, Any]]:
    """Those that end by themselves, in one to three seconds or sooner."""
    return {
        "chain": _chain(),
        "branches": _branches(marks),
        "conditions": _conditions(),
        "functions": _functions(marks, length=100),
        "more functions": _functions(marks, length=60),
        "naps": definition(
            [
                ("t", "trigger", {}),
                *((f"d{number}", "delay", {"seconds": 0.3}) for number in range(3)),
                ("nap", "delay", {"seconds": 1.2}),
                ("end", "end", {}),
            ]
        ),
    }


def _chain(length: int = 40) -> dict[str, Any]:
    nodes: Nodes = [("n0", "trigger", {})]
    for number in range(1, length):
        if number % 2:
            nodes.append((f"n{number}", "note", {}))
        else:
            nodes.append((f"n{number}", "transform", {"output": {"n": number}}))
    return definition([*nodes, ("end", "end", {})])


def _branches(marks: Path) -> dict[str, Any]:
    """Five branches of four nodes, joined twice."""
    nodes: Nodes = [("t", "trigger", {}), ("join", "transform", {"output": {"joined": True}})]
    edges = []
    for branch in "abcde":
        edges.append(f"t>{branch}0")
        for number in range(4):
            nodes.append((f"{branch}{number}", "note", {}))
            edges.append(f"{branch}{number}>" + (f"{branch}{number + 1}" if number < 3 else "join"))
    function = {"functionName": "touch_file", "payload": {"path": str(marks)}}
    nodes += [("x", "note", {}), ("y", "function", function), ("end", "end", {})]
    return definition(nodes, " ".join([*edges, "join>x", "join>y", "x>end", "y>end"]))


def _conditions() -> dict[str, Any]:
    nodes: Nodes = [("t", "trigger", {}), ("v0", "transform", {"output": {"n": 0}})]
    edges = ["t>v0"]
    for number in range(1, 9):
        expression = f"steps.v{number - 1}.output.n >= 0"
        condition = {"conditions": [{"id": "yes", "expression": expression}]}
        nodes += [
            (f"c{number}", "condition", condition),
            (f"v{number}", "transform", {"output": {"n": number}}),
            (f"no{number}", "note", {}),
        ]
        edges += [
            f"v{number - 1}>c{number}",
            f"c{number}>v{number}:yes",
            f"c{number}>no{number}:else",
        ]
    nodes.append(("end", "end", {}))
    return definition(nodes, " ".join([*edges, "v8>end"]))


def _delays() -> dict[str, Any]:
    """Short sleeps, which a thread waits for, and in the end a long one, which it does not."""
    nodes: Nodes = [("t", "trigger", {})]
    for number in range(8):
        nodes.append((f"n{number}", "note", {}))
        nodes.append((f"d{number}", "delay", {"seconds": 0.02 if number < 6 else 1.2}))
    return definition([*nodes, ("long", "delay", {"seconds": 3600}), ("end", "end", {})])


def _failing() -> dict[str, Any]:
    """Each function fails twice; the last node fails for good."""
    nodes: Nodes = [("t", "trigger", {})]
    for number in range(6):
        config = {
            "functionName": "fail_until",
            "payload": {"attempt": 3},
            "retry": {"maxAttempts": 3, "backoffSeconds": 0.03},
        }
        nodes += [(f"f{number}", "function", config), (f"n{number}", "note", {})]
    broken = {"functionName": "fail_until", "payload": {"attempt": 99}}
    return definition([*nodes, ("broken", "function", broken), ("end", "end", {})])


def _functions(marks: Path, length: int = 12) -> dict[str, Any]:
    """Side effects, one after the other: some quick, some slow, some that don't want to stop."""
    nodes: Nodes = [("t", "trigger", {})]
    for number in range(length):
        name = ("touch_file", "slow", "deaf")[number % 3]
        payload: dict[str, Any] = {"path": str(marks)}
        if name != "touch_file":
            payload["seconds"] = 0.02
        nodes.append((f"f{number}", "function", {"functionName": name, "payload": payload}))
    return definition([*nodes, ("end", "end", {})])
