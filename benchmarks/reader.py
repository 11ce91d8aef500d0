"""A connection of one thread for reading, which waits while the database is away."""

from __future__ import annotations

import time
from typing import Any

from app.db import Database
from app.engine.link import Disconnected, Link

PATIENCE = 60.0  # seconds that the database may be away
_AGAIN = 0.05


class Reader:
    """Reads on a connection of its own; no two threads at a time."""

    def __init__(self, db: Database) -> None:
        self._link = Link(db, "benchmark reader")

    def rows(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """The rows of a statement that is safe to repeat; sent again until it was answered."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._link.run(lambda connection: _rows(connection, statement, parameters))
            except Disconnected:
                if time.monotonic() > until:
                    raise
                time.sleep(_AGAIN)

    def close(self) -> None:
        """Close the connection."""
        self._link.close()


def _rows(connection: Any, statement: str, parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []
