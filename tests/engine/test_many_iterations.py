"""Ten thousand iterations: time and memory that don't grow with their number."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from app.domain.expressions import render
from app.domain.outcomes import Done, Outcome
from app.engine.interpreter import Interpreter
from app.nodes.base import Context, NodeKind
from app.store import steps
from tests.engine.bodies import inside, lose, loop, sql
from tests.engine.conftest import Lab, node
from tests.processes import wait_for


class Meter(NodeKind):
    """Measures the memory of this process at two iterations; keeps nothing of its calls."""

    kind = "meter"

    def __init__(self, first: int, second: int) -> None:
        self.at = (first, second)
        self.sizes: list[int] = []

    def run(self, context: Context) -> Outcome:
        outer = context.scope["loop"]["outer"]
        index = context.scope["loop"]["index"] if outer is None else outer["index"]
        if index in self.at:
            gc.collect()
            self.sizes.append(tracemalloc.get_traced_memory()[0])
        return Done({"n": index})
