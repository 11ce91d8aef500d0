"""What remote sides tell of the steps that they work on: the end, or that they are still at it.

An end is stored in ``steps.result``, and the run is signalled: the executor that next holds it ends
the step. One message of two statements, as in transitions.py: the first takes the lock on the run's
row, the second sees what was committed while it waited. So a cancel, a park and a callback come one
after the other, and none is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text

from app.domain.lifecycle import RUNNING, TERMINAL, WAITING_APPROVAL, sql_list
from app.domain.models import Step
from app.store import late as late_news
from app.store import rows
from app.store.leases import DUE_CHANNEL

CallbackOutcome = Literal["recorded", "duplicate", "late"]

# Where the connector of a parked step ``s`` has a heartbeat; see app/nodes/dispatch.py.
HAS_HEARTBEAT = "s.wake_at IS NOT NULL AND s.output -> 'callback' ->> 'heartbeatMs' IS NOT NULL"


def put_off(now: str) -> str:
    """SQL for the time when silence from ``now`` on, an SQL expression, fails the step ``s``."""
    return f"""least(CAST(s.output -> 'callback' ->> 'deadline' AS timestamptz),
        {now} + CAST(s.output -> 'callback' ->> 'heartbeatMs' AS bigint)
            * interval '1 millisecond')"""


# A colon would be a parameter to SQLAlchemy.
_NOW = late_news.time_text("clock_timestamp()").replace(":", "\\:")

_TOKEN = text("""
SELECT callback_sha256 FROM steps
WHERE run_id = :run_id AND seq = :seq AND metronome_id = :metronome_id
""")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a callback belongs: the step ``seq`` of a run."""

    metronome_id: str
    run_id: str
    seq: int

    @property
    def values(self) -> dict[str, str | int]:
        """For the statements of this module."""
        return {"metronome_id": self.metronome_id, "run_id": self.run_id, "seq": self.seq}


def token_sha256(connection: Connection, place: Place) -> str | None:
    """The SHA-256, in hex, of the token that may end this step; None where nothing may."""
    found: str | None = connection.execute(_TOKEN, place.values).scalar_one_or_none()
    return found


# A step is open to a callback while its run goes on: what was cancelled, or given up by a retry
# from the start, has ended, though a node may still be in flight. ``told``: there was one before.
_RECORD = text(f"""
SELECT id FROM runs WHERE id = :run_id AND metronome_id = :metronome_id FOR NO KEY UPDATE;

WITH found AS MATERIALIZED (
    SELECT s.seq, s.result IS NOT NULL AS told,
        s.status = '{RUNNING}' AND r.status NOT IN ({sql_list(TERMINAL)})
            AND s.seq > r.base_seq AS open
    FROM runs r JOIN steps s ON s.run_id = r.id AND s.seq = :seq
    WHERE r.id = :run_id AND r.metronome_id = :metronome_id AND s.callback_sha256 = :sha256
),
recorded AS (
    UPDATE steps s SET result = CAST(:result AS json), updated_at = clock_timestamp()
    FROM found f WHERE s.run_id = :run_id AND s.seq = f.seq AND f.open AND NOT f.told
    RETURNING s.*
),
kept AS (
    UPDATE steps s SET metadata = CAST(
        coalesce(CAST(s.metadata AS jsonb), '{{}}') || jsonb_build_object('lateCallback',
            CAST(:late AS jsonb) || jsonb_build_object('at', {_NOW}))
        AS json)
    FROM found f WHERE s.run_id = :run_id AND s.seq = f.seq AND NOT f.open AND NOT f.told
        AND s.metadata -> 'lateCallback' IS NULL
    RETURNING s.*
),
signalled AS (
    UPDATE runs r SET signalled = true, due_at = CASE
        WHEN r.lease_token IS NULL AND r.status IN ('{RUNNING}', '{WAITING_APPROVAL}')
        THEN clock_timestamp() ELSE r.due_at END
    FROM recorded WHERE r.id = recorded.run_id
    RETURNING pg_notify('{DUE_CHANNEL}', '')
),
after AS (
    SELECT * FROM recorded
    UNION ALL
    SELECT * FROM kept
    UNION ALL
    SELECT s.* FROM steps s JOIN found f ON s.run_id = :run_id AND s.seq = f.seq
    WHERE NOT EXISTS (SELECT FROM recorded) AND NOT EXISTS (SELECT FROM kept)
)
SELECT {rows.columns(rows.STEP_FIELDS, "a")},
    CASE WHEN f.told THEN 'duplicate' WHEN f.open THEN 'recorded' ELSE 'late' END
FROM found f, after a
""")


def record(
    connection: Connection, place: Place, sha256: str, *, result: str, late: str
) -> tuple[Step, CallbackOutcome] | None:
    """Store how the work of a step ended; None where the step is gone, or the token another's.

    ``result`` is JSON text for the interpreter; ``late`` is JSON text for the trace, where the step
    has ended without it: the first one is kept in the metadata, and nothing else changes. A second
    result changes nothing.
    """
    values = {**place.values, "sha256": sha256, "result": result, "late": late}
    row = connection.execute(_RECORD, values).one_or_none()
    return None if row is None else (rows.step(row), row[len(rows.STEP_FIELDS)])


# The run's due_at stays: it may wake too early then, and goes back to sleep.
_BEAT = text(f"""
WITH beat AS (
    UPDATE steps s SET updated_at = clock_timestamp(), wake_at = {put_off("clock_timestamp()")}
    WHERE s.run_id = :run_id AND s.seq = :seq AND s.metronome_id = :metronome_id
      AND s.callback_sha256 = :sha256 AND s.status = '{RUNNING}' AND s.lease_token IS NULL
      AND s.result IS NULL AND {HAS_HEARTBEAT}
)
SELECT s.status, r.status FROM steps s JOIN runs r ON r.id = s.run_id
WHERE s.run_id = :run_id AND s.seq = :seq AND s.metronome_id = :metronome_id
  AND s.callback_sha256 = :sha256
""")


def beat(connection: Connection, place: Place, sha256: str) -> tuple[str, str] | None:
    """The remote side is alive: put off the time at which its silence fails the step.

    Answers the status of the step and that of the run; None as ``record`` does.
    """
    row = connection.execute(_BEAT, {**place.values, "sha256": sha256}).one_or_none()
    return None if row is None else (row[0], row[1])
