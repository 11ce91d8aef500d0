"""The trace of a run as people read it: its steps, and the iterations that they are in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, text

from app.domain.models import Actor, Iteration, Page, Step
from app.store import rows, trees
from app.store.proof import ActorMessage

LOOP = "loop"  # the kind of node

# The run comes along, so that an empty trace can be told from a run that is not there.
PAGE_MESSAGE = ActorMessage(
    f"""
SELECT {rows.columns(rows.STEP_FIELDS, "s")}, s.completed_at IS NULL AND s.lease_token IS NULL
FROM runs r LEFT JOIN LATERAL (
    SELECT * FROM steps s WHERE s.run_id = r.id AND s.seq > :after
    ORDER BY s.seq LIMIT :limit OFFSET :offset
) s ON true
WHERE {trees.TARGET}
ORDER BY s.seq
""",
    after="int",
    limit="bigint",
    offset="bigint",
)

_LOOPS = text(f"""
SELECT s.seq, s.node_id, s.parent_seq, s.iteration FROM steps s
WHERE s.run_id = :run_id AND s.seq <= :last AND s.node_type = '{LOOP}'
""")


def page(
    connection: Connection, actor: Actor, metronome_id: str, run_id: str, part: Page
) -> list[Step] | None:
    """A page of the steps of a run, in the order in which they came; None without such a run.

    Their cursor is the number of a step. Raises KeyUnproven.
    """
    values = {
        "run_id": run_id,
        "metronome_id": metronome_id,
        "organization_id": actor.organization_id,
        "limit": part.limit,
        "offset": part.offset,
        "after": int(part.after or 0),
    }
    found = PAGE_MESSAGE.rows(connection, actor, values)
    if not found:
        return None
    steps = [
        replace(rows.step(row), parked=row[len(rows.STEP_FIELDS)])
        for row in found
        if row[0] is not None
    ]
    if any(step.parent_seq is not None for step in steps):
        last = {"run_id": run_id, "last": steps[-1].seq}
        return placed(steps, connection.execute(_LOOPS, last))
    return steps


def placed(steps: Iterable[Step], loops: Iterable[Sequence[Any]]) -> list[Step]:
    """``steps`` with the iterations that they are in.

    ``loops`` has the seq, node_id, parent_seq and iteration of each loop's own step.
    """
    known = {row[0]: _Loop(*row[1:]) for row in loops}
    return [replace(step, loops=_path(step.parent_seq, step.iteration, known)) for step in steps]


@dataclass(frozen=True, slots=True)
class _Loop:
    node_id: str
    parent_seq: int | None
    iteration: int | None


def _path(
    seq: int | None, iteration: int | None, loops: Mapping[int, _Loop]
) -> tuple[Iteration, ...]:
    """The iterations that a step is in, which names the loop of the step ``seq``."""
    path: list[Iteration] = []
    while seq is not None and iteration is not None and seq in loops:
        loop = loops[seq]
        path.append(Iteration(loop.node_id, iteration))
        seq, iteration = loop.parent_seq, loop.iteration
    return tuple(reversed(path))
