"""Every method that the SDK's resource has is called by a test here."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

from computer_agents.resources.metronomes import MetronomesResource


def test_every_method_of_the_sdk_is_called() -> None:
    there = {
        name
        for name, _ in inspect.getmembers(MetronomesResource, inspect.isfunction)
        if not name.startswith("_")
    }
    called = {
        node.func.attr
        for path in Path(__file__).parent.glob("test_sdk*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "sdk"
    }
    assert there
    assert there - called == set()
    assert called - there == set()
