"""The trace of a run: for the API as records, for the interpreter as what it needs to go on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from app.db import RawConnection
from app.domain.models import Step
from app.store import rows

_LIST = text(f"""
SELECT {rows.columns(rows.STEP_FIELDS, "s")} FROM steps s WHERE s.run_id = :run_id ORDER BY s.seq
""")


def of_run(connection: Connection, run_id: str) -> list[Step]:
    """The steps of a run in the order in which they came."""
    return [rows.step(row) for row in connection.execute(_LIST, {"run_id": run_id})]


@dataclass(frozen=True, slots=True)
class Trail:
    """What the interpreter needs of a step; ``output`` and ``metadata`` are JSON text."""

    seq: int
    node_id: str
    status: str
    attempt: int
    output: str | None
    metadata: str | None
    error: str | None
    started_at: datetime | None
    wake_at: datetime | None


_TRAIL = """
SELECT seq, node_id, status, attempt, output, metadata, error, started_at, wake_at
FROM steps WHERE run_id = %s ORDER BY seq
"""


def trail(connection: RawConnection, run_id: str) -> list[Trail]:
    """Everything that has happened in a run, to go on from."""
    with connection.cursor() as cursor:
        cursor.execute(_TRAIL, (run_id,))
        return [Trail(*row) for row in cursor.fetchall()]
