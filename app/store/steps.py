"""The trace of a run as the interpreter needs it to go on; ``trace.py`` has it for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.db import RawConnection
from app.domain.lifecycle import COMPLETED, SKIPPED


@dataclass(frozen=True, slots=True)
class Trail:
    """What the interpreter needs of a step; input, output, metadata and result are JSON text.

    ``input`` is there for a loop that goes on. ``lease_token`` tells under which claim the node is
    in flight; a step that is open without one is parked.
    """

    seq: int
    node_id: str
    status: str
    attempt: int
    output: str | None
    metadata: str | None
    error: str | None
    started_at: datetime | None
    wake_at: datetime | None
    parent_seq: int | None
    iteration: int | None
    lease_token: str | None
    unsafe: bool
    result: str | None
    input: str | None


_COLUMNS = f"""s.seq, s.node_id, s.status, s.attempt, s.output, s.metadata, s.error, s.started_at,
    s.wake_at, s.parent_seq, s.iteration, s.lease_token, s.unsafe, s.result,
    CASE WHEN s.node_type = 'loop' AND s.status <> '{COMPLETED}' THEN s.input END"""

_TRAIL = f"""
SELECT {_COLUMNS} FROM steps s WHERE s.run_id = %(run_id)s AND s.seq > %(base)s ORDER BY s.seq
"""

_GOES_ON = f"s.node_type = 'loop' AND s.status <> '{COMPLETED}'"

# Of a loop that goes on, or may go on after a retry, only the last two iterations matter; of one
# that has ended, none. So the steps of a run are looked through once, for those outside of all
# loops, and what is read of the loops does not grow with their iterations. A level of loops is a
# query: in a recursive one, the planner takes guesses that lead it astray.
_OUTSIDE = f"""
SELECT {_COLUMNS}, {_GOES_ON} FROM steps s
WHERE s.run_id = %(run_id)s AND s.seq > %(base)s AND s.parent_seq IS NULL
"""

_LAST_ITERATIONS = f"""
SELECT {_COLUMNS}, {_GOES_ON}
FROM unnest(%(loops)s::int[]) AS l (seq)
CROSS JOIN LATERAL (
    SELECT max(n.iteration) AS iteration FROM steps n
    WHERE n.run_id = %(run_id)s AND n.parent_seq = l.seq
      AND (n.started_at IS NOT NULL OR n.status = '{SKIPPED}')
) last
CROSS JOIN LATERAL (
    SELECT n.* FROM steps n
    WHERE n.run_id = %(run_id)s AND n.parent_seq = l.seq AND n.iteration >= last.iteration - 1
    OFFSET 0
) s
"""

_LAST = "SELECT coalesce(max(seq), 0) FROM steps WHERE run_id = %s"


def trail(
    connection: RawConnection, run_id: str, *, base: int, loops: bool
) -> tuple[list[Trail], int]:
    """What has happened in a run since the step ``base``, to go on from, and its last seq.

    ``loops`` says that the workflow has loops: then only what still matters of them is read.
    """
    values: dict[str, Any] = {"run_id": run_id, "base": base}
    with connection.cursor() as cursor:
        if loops:
            found = _with_loops(cursor, values)
        else:
            cursor.execute(_TRAIL, values)
            found = [Trail(*row) for row in cursor.fetchall()]
            if found:
                return found, found[-1].seq
        cursor.execute(_LAST, (run_id,))
        row = cursor.fetchone()
    return found, row[0] if row else 0


def _with_loops(cursor: Any, values: dict[str, Any]) -> list[Trail]:
    cursor.execute(_OUTSIDE, values)
    rows = found = cursor.fetchall()
    while loops := [row[0] for row in rows if row[-1]]:
        cursor.execute(_LAST_ITERATIONS, values | {"loops": loops})
        rows = cursor.fetchall()
        found = found + rows
    return sorted((Trail(*row[:-1]) for row in found), key=lambda step: step.seq)


_NEWS = "SELECT result, wake_at FROM steps WHERE run_id = %s AND seq = %s"


def news(
    connection: RawConnection, run_id: str, seq: int
) -> tuple[str | None, datetime | None] | None:
    """What came from outside for a step that waits, as JSON text, and when it goes on at the
    latest; None where the step is gone."""
    with connection.cursor() as cursor:
        cursor.execute(_NEWS, (run_id, seq))
        row = cursor.fetchone()
    return None if row is None else (row[0], row[1])


_OUTPUTS = f"""
SELECT iteration, node_id, output FROM (
    SELECT s.iteration, s.seq, s.node_id, s.output, coalesce(
            sum(octet_length(CAST(s.output AS text))) OVER (ORDER BY s.iteration, s.seq
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
    FROM steps s
    WHERE s.run_id = %(run_id)s AND s.parent_seq = ANY (%(loops)s) AND s.status = '{COMPLETED}'
      AND s.node_id = ANY (%(nodes)s)
) o
WHERE before <= %(max_bytes)s ORDER BY iteration, seq
"""


def iteration_outputs(
    connection: RawConnection,
    run_id: str,
    loops: Sequence[int],
    nodes: Sequence[str],
    *,
    max_bytes: int,
) -> list[tuple[int, str, str]]:
    """What ``nodes`` answered inside of a loop, until it is more than ``max_bytes`` in all.

    ``loops`` are the loop's steps. Each is (iteration, node id, JSON text), in order; the last one
    is the one too much, by which the reader sees that there is more.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _OUTPUTS,
            {
                "run_id": run_id,
                "loops": list(loops),
                "nodes": list(nodes),
                "max_bytes": max_bytes,
            },
        )
        return cursor.fetchall()
