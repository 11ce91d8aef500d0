"""A database connection of one thread that comes back after it was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg2

from app.db import Database, RawConnection

T = TypeVar("T")

# Classes of SQLSTATE, for the two that psycopg2 sorts otherwise than we need it.
TOO_MUCH = "54"  # program limit exceeded: a value that will never be accepted
BAD_STATE = "25"  # invalid transaction state: read-only, during a failover for one


class Disconnected(Exception):
    """The connection is gone; whether the last statement was committed is not known."""


class Link:
    """One raw connection, opened when it is first needed; ``prepare`` is called on each new one."""

    def __init__(
        self, db: Database, name: str, prepare: Callable[[RawConnection], None] | None = None
    ) -> None:
        self._db = db
        self._name = name
        self._prepare = prepare
        self._connection: RawConnection | None = None

    def run(self, work: Callable[[RawConnection], T]) -> T:
        """Call ``work`` with the connection.

        Raises Disconnected where the database can't be reached, can't be written to at the moment,
        or the connection broke: it is no fault of what was sent, which may be tried again. Other
        database errors pass through: the connection is in autocommit and stays usable.
        """
        try:
            if self._connection is None:
                self._connection = self._open()
            return work(self._connection)
        except psycopg2.Error as error:
            broken = self._connection is None or self._connection.closed != 0
            if not broken and not is_passing(error):
                raise
            # One that only ended the statement (a deadlock, say) is tried again in the same way.
            self.close()
            raise Disconnected(str(error).strip()) from error

    def close(self) -> None:
        """Close the connection; the next ``run`` opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> RawConnection:
        connection = self._db.raw(application_name=self._name)
        try:
            if self._prepare is not None:
                self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def is_passing(error: psycopg2.Error) -> bool:
    """Whether the same statement may succeed at another time, or on another connection."""
    state = error.pgcode or ""
    if isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError)):
        return not state.startswith(TOO_MUCH)
    # Where the server crashes in the middle of its answer, libpq may have no words for it.
    return state.startswith(BAD_STATE) or (type(error) is psycopg2.DatabaseError and not state)
