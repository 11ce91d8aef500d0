"""Definitions that can be published, for the tests of what publishes them."""

from __future__ import annotations

from typing import Any


def publishable(text: str = "hello", *, trigger: dict[str, Any] | None = None) -> dict[str, Any]:
    """A trigger, a transform that makes ``text``, and an end."""
    start = trigger or {"id": "start", "kind": "trigger", "subtype": "manual"}
    return {
        "nodes": [
            start,
            {"id": "say", "kind": "transform", "config": {"output": {"text": text}}},
            {"id": "finish", "kind": "end"},
        ],
        "edges": [
            {"id": "e1", "source": start["id"], "target": "say"},
            {"id": "e2", "source": "say", "target": "finish"},
        ],
    }


def called(slug: str) -> dict[str, Any]:
    """A definition that is called by a slug."""
    node = {"id": "start", "kind": "trigger", "subtype": "function", "config": {"slug": slug}}
    return publishable(trigger=node)
