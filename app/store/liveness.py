"""Which executors have died, as the database knows it: a process that ends loses its sessions.

An executor holds an advisory lock in a session of its own, its lifeline. Another one waits for that
lock. Who gets it knows at once that the session has ended; but perhaps it was only the session. So
an executor is dead where its lock is still free a moment later, and where no other session of it
is left, which is seen by the names of the connections (``Database.owner``).

What a death changes is when the leases of the dead end, and nothing else: claims and sweeps do the
rest, as they do for leases that end by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.db import OWNER_LENGTH, RawConnection
from app.store.leases import DUE_CHANNEL

EXECUTORS: Final = "executors"  # on the channel of due runs: there is another lifeline
LIFELINE: Final = "metronome lifeline"  # names of connections
WATCH: Final = "metronome watch"


def _key(executor: str) -> str:
    return f"hashtextextended('metronome lifeline ' || {executor}, 0)"


def _names(executor: str) -> str:
    """SQL for whether the backend ``a`` is one of ``executor``'s.

    Those that watch don't count: they may wait for a lock while their process is long gone.
    """
    return f"""(a.datname = current_database()
        AND strpos(a.application_name, right({executor}, {OWNER_LENGTH})) > 0
        AND NOT starts_with(a.application_name, '{WATCH}'))"""


def is_supported(connection: RawConnection) -> bool:
    """Whether this is PostgreSQL itself: others know such locks by name only, or on some nodes."""
    told = connection.info.parameter_status
    return told("crdb_version") is None and "YB" not in (told("server_version") or "")


# Behind a pooler the session may be somebody else's at any time; its process id tells.
_HOLD = f"""
WITH lock AS MATERIALIZED (
    SELECT CASE WHEN pg_backend_pid() = %(pid)s
        THEN pg_try_advisory_lock({_key("%(id)s")}) END AS mine
),
told AS (
    INSERT INTO executors (id, threads, lifeline) SELECT %(id)s, %(threads)s, true
    FROM lock WHERE mine
    ON CONFLICT (id) DO UPDATE SET lifeline = true, seen_at = clock_timestamp()
    RETURNING pg_notify('{DUE_CHANNEL}', '{EXECUTORS}')
)
SELECT mine FROM lock LEFT JOIN told ON true
"""


def hold(connection: RawConnection, executor: str, threads: int) -> bool | None:
    """Take the lock of ``executor`` for as long as this session lives, and tell the others.

    False where somebody still has it, its own lost session perhaps; None where the session is not
    this connection's own.
    """
    values = {"id": executor, "threads": threads, "pid": connection.info.backend_pid}
    with connection.cursor() as cursor:
        cursor.execute(_HOLD, values)
        ((mine,),) = cursor.fetchall()
    return None if mine is None else bool(mine)


_UNWATCHED = "UPDATE executors SET lifeline = false WHERE id = %s"


def unwatched(connection: RawConnection, executor: str) -> None:
    """Say that ``executor`` holds no lock, so that this does not mean its death."""
    with connection.cursor() as cursor:
        cursor.execute(_UNWATCHED, (executor,))


@dataclass(frozen=True, slots=True)
class Peer:
    """An executor with a lifeline; ``pid`` is of the session that holds it, None: nobody does."""

    id: str
    key: int
    pid: int | None


# The wait has to end now and then, since its snapshot holds vacuum back. It ends without an error,
# which would stand in the server's log each time; so does a wait that is cancelled.
_WAIT = """
DO $$
BEGIN
    SET LOCAL lock_timeout = %(milliseconds)s;
    PERFORM pg_advisory_lock(%(key)s);
EXCEPTION WHEN lock_not_available OR query_canceled THEN
END $$;
"""

# Who only waited for a lock may have it for a moment, and does not hold it.
_PEERS = f"""
SELECT pg_advisory_unlock_all();

WITH held AS MATERIALIZED (
    SELECT l.pid, l.classid::bigint << 32 | l.objid::bigint AS key
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND a.datname = current_database() AND starts_with(a.application_name, '{LIFELINE}')
)
SELECT e.id, {_key("e.id")}, held.pid
FROM executors e LEFT JOIN held ON held.key = {_key("e.id")}
WHERE e.lifeline ORDER BY e.id
"""


def look(
    connection: RawConnection, wait_for: Peer | None = None, seconds: float = 0.0
) -> list[Peer]:
    """All executors with a lifeline, in a fixed order.

    With ``wait_for``: once its lock becomes free, or after so many seconds.
    """
    waits = {} if wait_for is None else {"key": wait_for.key}
    with connection.cursor() as cursor:
        cursor.execute(
            (_WAIT if wait_for else "") + _PEERS,
            {**waits, "milliseconds": max(1, round(seconds * 1000))},
        )
        return [Peer(*row) for row in cursor.fetchall()]


# After a crash of one of its sessions the server ends all of them, and resets its statistics.
_SERVER_AGE = """
SELECT extract(epoch FROM clock_timestamp()
    - greatest(pg_postmaster_start_time(), (SELECT stats_reset FROM pg_stat_bgwriter)))::float8
"""


def server_age(connection: RawConnection) -> float:
    """Seconds since the server last ended all sessions, by a restart or a crash; or fewer."""
    with connection.cursor() as cursor:
        cursor.execute(_SERVER_AGE)
        ((seconds,),) = cursor.fetchall()
    return float(seconds)


# Who comes back meanwhile waits for the lock, and finds its leases ended, or taken. In id order, as
# every statement that locks several runs.
_BURY = f"""
WITH dead AS MATERIALIZED (
    SELECT e.id FROM executors e
    WHERE e.id = %(id)s AND e.lifeline
      AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE {_names("e.id")})
      AND pg_try_advisory_xact_lock({_key("e.id")})
),
held AS MATERIALIZED (
    SELECT r.id FROM dead JOIN runs r ON r.locked_by = dead.id
    WHERE r.lease_token IS NOT NULL AND r.due_at > clock_timestamp()
    ORDER BY r.id FOR NO KEY UPDATE OF r
),
ended AS (
    UPDATE runs r SET due_at = clock_timestamp() FROM held WHERE r.id = held.id
    RETURNING r.id
),
gone AS (
    DELETE FROM executors e USING dead WHERE e.id = dead.id
)
SELECT (SELECT count(*) FROM ended), pg_notify('{DUE_CHANNEL}', '') FROM dead
"""


def bury(connection: RawConnection, executor: str) -> int | None:
    """End all leases of ``executor`` now, and forget it, where it is dead: how many runs it held.

    None where it still has a session, or somebody else has buried it.
    """
    with connection.cursor() as cursor:
        cursor.execute(_BURY, {"id": executor})
        row = cursor.fetchone()
    return None if row is None else int(row[0])
