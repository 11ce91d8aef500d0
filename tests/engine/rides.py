"""What a test sees of steps that ride along."""

from __future__ import annotations

from collections.abc import Callable

from app.engine.executor import Executor
from app.store.boundary import Boundary, Verdict


def watched(
    executor: Executor, before: Callable[[Boundary], object] = lambda boundary: None
) -> list[Boundary]:
    """The boundaries that the executor writes; ``before`` is called ahead of each."""
    write, seen = executor._writer.write, []

    def told(boundary: Boundary) -> Verdict:
        before(boundary)
        seen.append(boundary)
        return write(boundary)

    executor._writer.write = told  # type: ignore[method-assign]
    return seen


def starts(boundaries: list[Boundary]) -> list[list[str]]:
    """The nodes that each of them starts."""
    return [[step.node_id for step in one.starts] for one in boundaries]
