"""Nested runs, as the run that waits for them sees them: what to start, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.db import RawConnection
from app.domain.lifecycle import TERMINAL, sql_list
from app.store.concurrency import HAS_PLACE, WAITS, Group, Policy


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow that is to run; ``version_id`` None where its draft has no version yet."""

    id: str
    status: str
    version_id: str | None
    policy: Policy | None


_FIND = """
SELECT id, status, coalesce(published_version_id, draft_version_id), max_concurrent_runs, on_limit,
    concurrency_key
FROM metronomes
WHERE organization_id = %s AND (id = %s OR name = %s AND status <> 'archived') LIMIT 2
"""


def find(
    connection: RawConnection, organization_id: str, workflow_id: str | None, name: str | None
) -> list[Workflow]:
    """The workflows of an organization with that id, or with that name: two at most."""
    with connection.cursor() as cursor:
        cursor.execute(_FIND, (organization_id, workflow_id, name))
        return [
            Workflow(id, status, version_id, None if most is None else Policy(most, *more))
            for id, status, version_id, most, *more in cursor.fetchall()
        ]


_ROOM = f"""
SELECT count(*) < %(most)s FROM (
    SELECT FROM runs r
    WHERE r.metronome_id = %(metronome_id)s AND r.concurrency_key = %(group)s
      AND (({HAS_PLACE}) OR {WAITS})
    LIMIT %(most)s
) p
"""


def has_room(connection: RawConnection, group: Group, most: int) -> bool:
    """Whether a group has a free place just now, for which nobody waits."""
    metronome_id, key = group
    with connection.cursor() as cursor:
        cursor.execute(_ROOM, {"metronome_id": metronome_id, "group": key, "most": most})
        row = cursor.fetchone()
    return row is not None and bool(row[0])


_LINE = """
WITH RECURSIVE line AS (
    SELECT id, metronome_id, parent_run_id FROM runs WHERE id = %s
    UNION ALL
    SELECT r.id, r.metronome_id, r.parent_run_id FROM line l JOIN runs r ON r.id = l.parent_run_id
)
SELECT metronome_id FROM line
"""


def line(connection: RawConnection, run_id: str) -> list[str]:
    """The ids of the workflows of a run and of all runs above it."""
    with connection.cursor() as cursor:
        cursor.execute(_LINE, (run_id,))
        return [row[0] for row in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class End:
    """How the nested run of the step ``seq`` has ended; ``output`` is JSON text."""

    seq: int
    status: str
    output: str | None
    error: str | None


_ENDS = f"""
SELECT a.seq, coalesce(c.status, 'deleted'), c.output, c.error
FROM unnest(%(seqs)s::int[], %(ids)s::text[]) AS a (seq, id)
LEFT JOIN runs c ON c.id = a.id
WHERE c.id IS NULL OR c.status IN ({sql_list(TERMINAL)})
"""


def ends(connection: RawConnection, children: Sequence[tuple[int, str]]) -> list[End]:
    """Which of ``children`` (seq of the step that waits, id of the nested run) have ended."""
    arguments = {"seqs": [seq for seq, _ in children], "ids": [run for _, run in children]}
    with connection.cursor() as cursor:
        cursor.execute(_ENDS, arguments)
        return [End(*row) for row in cursor.fetchall()]


_OPEN = f"""
SELECT metronome_id, id FROM runs
WHERE parent_run_id = %(run_id)s AND (%(seqs)s IS NULL OR parent_seq = ANY (%(seqs)s::int[]))
  AND status NOT IN ({sql_list(TERMINAL)})
"""


def still_open(
    connection: RawConnection, run_id: str, seqs: Sequence[int] | None
) -> list[tuple[str, str]]:
    """The nested runs of these steps (None: all) that have not ended: (workflow id, run id)."""
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, {"run_id": run_id, "seqs": None if seqs is None else list(seqs)})
        return cursor.fetchall()
