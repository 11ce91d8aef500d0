"""The refusal of a definition, in words."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.errors import Invalid
from app.services.definitions import checked


def message(nodes: list[Any], edges: list[Any]) -> str:
    """What the refusal says."""
    with pytest.raises(Invalid) as caught:
        checked({"nodes": nodes, "edges": edges})
    return caught.value.message


def test_the_faults_are_one_sentence() -> None:
    nodes = [{"id": name, "kind": "rocket"} for name in ("a", "b")]
    said = message(nodes, [])
    assert said.startswith("the definition is not valid: node a: ")
    assert "; node b: " in said
    assert ".;" not in said


def test_an_edges_fault_is_told_as_the_edges() -> None:
    nodes = [{"id": "a", "kind": "trigger"}, {"id": "b", "kind": "end"}]
    edges = [
        {"id": "e1", "source": "b", "target": "b"},
        {"source": "b", "target": "b"},
        {"id": "e3", "source": "a", "target": "c"},
    ]
    said = message(nodes, edges)
    assert "edge e1: " in said
    assert "edge without an id: " in said
    assert "edge e3: " in said
    assert "node b: " not in said
