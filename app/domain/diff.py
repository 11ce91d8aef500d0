"""What has changed from one definition to another, by nodes and edges.

The two forms of a node are the same thing: what is compared is what a node says, not how it is
written. Nodes are matched by their ids, and so are edges; an edge without an id by what it joins.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.forms import body_of, has_data

_JOINS = ("source", "target", "sourceHandle", "targetHandle")


@dataclass(frozen=True, slots=True)
class Changed:
    """A node or an edge that both have; ``fields`` are those that differ, sorted."""

    id: str | None
    fields: tuple[str, ...]
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Changes:
    """What was added, removed and changed, as it is written, in the order of the definitions."""

    added: tuple[Mapping[str, Any], ...]
    removed: tuple[Mapping[str, Any], ...]
    changed: tuple[Changed, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """All that differs between two definitions."""

    nodes: Changes
    edges: Changes


def compare(base: Mapping[str, Any], target: Mapping[str, Any]) -> Difference:
    """What has changed from ``base`` to ``target``, two sound definitions."""
    return Difference(
        nodes=_changes(_nodes(base), _nodes(target)),
        edges=_changes(_edges(base), _edges(target)),
    )


# (what it is matched by, as it is written, what it says)
_Item = tuple[Hashable, Mapping[str, Any], Mapping[str, Any]]


def _changes(base: Sequence[_Item], target: Sequence[_Item]) -> Changes:
    before = {key: (written, said) for key, written, said in base}
    after = {key: (written, said) for key, written, said in target}
    changed = []
    for key, (written, said) in after.items():
        if key not in before:
            continue
        old_written, old_said = before[key]
        fields = [
            name
            for name in sorted(said.keys() | old_said.keys())
            if _text(said.get(name)) != _text(old_said.get(name))
        ]
        if fields:
            changed.append(Changed(written.get("id"), tuple(fields), old_written, written))
    return Changes(
        added=tuple(written for key, (written, _) in after.items() if key not in before),
        removed=tuple(written for key, (written, _) in before.items() if key not in after),
        changed=tuple(changed),
    )


def _nodes(definition: Mapping[str, Any]) -> list[_Item]:
    return [(raw["id"], raw, _said(raw)) for raw in definition.get("nodes", ())]


def _said(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a node says in either form; an editor's ``type`` only names what draws it."""
    if not has_data(node):
        return node
    outside = {name: value for name, value in node.items() if name not in ("data", "type")}
    return {**outside, **body_of(node), "id": node["id"]}


def _edges(definition: Mapping[str, Any]) -> list[_Item]:
    """Those of the same ends and handles that have no ids are matched in their order."""
    found: list[_Item] = []
    seen: Counter[Hashable] = Counter()
    for raw in definition.get("edges", ()):
        key: Hashable = raw.get("id")
        if key is None:
            joins = tuple(raw.get(name) or None for name in _JOINS)
            key = (joins, seen[joins])
            seen[joins] += 1
        found.append((key, raw, raw))
    return found


def _text(value: Any) -> str:
    """A JSON value as text: so that true is not 1, and the order of fields does not count.

    What is absent is as null, and so is a config without anything in it.
    """
    return json.dumps(value if value not in ({}, "") else None, sort_keys=True)
