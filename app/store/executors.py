"""Which executors live: each says so every few seconds.

What it is answered saves it statements of their own: when the next run and schedule are due.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

from app.db import RawConnection
from app.store.leases import NEXT_DUE
from app.store.schedules import SECONDS

SEEN_SECONDS = 10.0  # how often an executor says that it lives

_SEEN = f"""
INSERT INTO executors (id, threads) VALUES (%(id)s, %(threads)s)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()
RETURNING {SECONDS}, ({NEXT_DUE})
"""
_GONE = "DELETE FROM executors WHERE id = %s OR seen_at < clock_timestamp() - interval '1 day'"

_ALIVE = text(
    "SELECT count(*) FROM executors"
    " WHERE seen_at > clock_timestamp() - :seconds * interval '1 second'"
)


class Upcoming(NamedTuple):
    """Seconds until the next schedule and the next run are due; None where there is none."""

    schedule: float | None
    run: float | None


def seen(connection: RawConnection, executor: str, threads: int) -> Upcoming:
    """Say that ``executor`` lives; what is due next."""
    with connection.cursor() as cursor:
        cursor.execute(_SEEN, {"id": executor, "threads": threads})
        ((schedule, run),) = cursor.fetchall()
    return Upcoming(schedule, run)


def gone(connection: RawConnection, executor: str) -> None:
    """Forget ``executor``, and those that have not been seen for a day."""
    with connection.cursor() as cursor:
        cursor.execute(_GONE, (executor,))


def alive(connection: Connection, *, within: float = 3 * SEEN_SECONDS) -> int:
    """How many executors were seen in the last ``within`` seconds."""
    return int(connection.execute(_ALIVE, {"seconds": within}).scalar_one())
