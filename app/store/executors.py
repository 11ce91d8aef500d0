"""Which executors live: each says so every few seconds.

What it is answered saves it a statement of its own: when the next schedule is due.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from app.db import RawConnection
from app.store.schedules import SECONDS

SEEN_SECONDS = 10.0  # how often an executor says that it lives

_SEEN = f"""
INSERT INTO executors (id, threads) VALUES (%(id)s, %(threads)s)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()
RETURNING {SECONDS}
"""
_GONE = "DELETE FROM executors WHERE id = %s OR seen_at < clock_timestamp() - interval '1 day'"

_ALIVE = text(
    "SELECT count(*) FROM executors"
    " WHERE seen_at > clock_timestamp() - :seconds * interval '1 second'"
)


def seen(connection: RawConnection, executor: str, threads: int) -> float | None:
    """Say that ``executor`` lives; seconds until the next schedule is due, None without one."""
    with connection.cursor() as cursor:
        cursor.execute(_SEEN, {"id": executor, "threads": threads})
        row = cursor.fetchone()
    return None if row is None or row[0] is None else float(row[0])


def gone(connection: RawConnection, executor: str) -> None:
    """Forget ``executor``, and those that have not been seen for a day."""
    with connection.cursor() as cursor:
        cursor.execute(_GONE, (executor,))


def alive(connection: Connection, *, within: float = 3 * SEEN_SECONDS) -> int:
    """How many executors were seen in the last ``within`` seconds."""
    return int(connection.execute(_ALIVE, {"seconds": within}).scalar_one())
