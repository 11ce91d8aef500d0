"""Connections to PostgreSQL.

Everything runs in autocommit: a use case is one statement, or a few in one message, which is a
transaction of its own and one round trip. Only what is rare takes several, in ``transaction()``.
Two kinds of connection:

- ``Database.connect()``: pooled, through SQLAlchemy, for the API and the command line.
- ``Database.raw()``: a bare psycopg2 connection of the caller's own, for the executor's threads
  (prepared statements) and for LISTEN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import orjson
import psycopg2
import psycopg2.extensions
import psycopg2.extras
from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")

RawConnection = psycopg2.extensions.connection

OWNER_LENGTH: Final = 40  # characters of an owner's id, its end: names have 63 bytes at the most

# For libpq: a server that has vanished without a word (a host that is down, a failover) is given up
# in half a minute, whether or not something was under way to it. Of what was, keepalives know
# nothing, and the kernel would wait for a quarter of an hour.
_PATIENCE: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
}

_IDLE_SECONDS = 5  # between two statements of a transaction
# How long a row is waited for that somebody else is changing. Whoever locks a workflow sends it at
# the head of the same message: otherwise one who is slow there would take all web threads.
LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '5s'"
LOCKED: Final = "55P03"  # the SQLSTATE where that was too long


def normalized(url: str) -> URL:
    """``url`` with the driver that we use: a bare ``postgresql://`` would mean psycopg 3."""
    parsed = make_url(url)
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg2"):
        return parsed.set(drivername="postgresql+psycopg2")
    raise ValueError(f"not a PostgreSQL URL: {parsed.render_as_string(hide_password=True)}")


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


class Database:
    """One PostgreSQL database; ``pool_size`` connections are kept, as many more may be opened.

    The end of ``owner``, an executor's id, is a part of the names of raw connections: so others can
    see in the database whether it has any.
    """

    def __init__(self, url: str, *, pool_size: int = 5, owner: str = "") -> None:
        self.url = normalized(url)
        self._owner = owner
        ours = {**_PATIENCE, "application_name": "metronome"}
        self._engine = create_engine(
            self.url,
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=10,
            json_serializer=_dumps,
            json_deserializer=orjson.loads,
            # which would go before what the URL says
            connect_args={name: ours[name] for name in ours if name not in self.url.query},
        )

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A pooled connection in autocommit."""
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A pooled connection in a transaction, which is committed at the end of the block.

        For what takes several statements and is rare; an exception rolls it back. Where this
        process stops in the middle, the database gives up the locks after a while. It waits for
        those of others no longer than ``LOCK_TIMEOUT``.
        """
        with self._engine.connect() as connection:
            connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                connection.exec_driver_sql(
                    f"SET LOCAL idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s';"
                    f" {LOCK_TIMEOUT}"
                )
                yield connection

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a read, once more on a new connection where the pooled one had died.

        No ping goes before it: that would be a round trip more on every request.
        """
        try:
            with self.connect() as connection:
                return query(connection)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        with self.connect() as connection:
            return query(connection)

    def raw(self, *, application_name: str = "metronome") -> RawConnection:
        """A new psycopg2 connection in autocommit, whose JSON columns come as text."""
        # SQLAlchemy knows how to turn the URL into libpq's arguments
        arguments, options = self._engine.dialect.create_connect_args(self.url)
        ours = {
            **_PATIENCE,
            "application_name": f"{application_name} {self._owner[-OWNER_LENGTH:]}".rstrip(),
        }
        connection: RawConnection = psycopg2.connect(*arguments, **{**ours, **options})
        connection.autocommit = True
        psycopg2.extras.register_default_json(connection, loads=_as_text)
        return connection

    def close(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()


def rows(
    connection: Connection, statement: str, values: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """The rows of a statement in the driver's own style, past all that SQLAlchemy does with it.

    For what is sent with every request: SQLAlchemy describes each result anew, which takes longer
    than the database does. Errors are SQLAlchemy's, as with every other statement.
    """
    driver: Any = connection.connection.dbapi_connection
    dialect: Any = connection.dialect
    cursor = driver.cursor()
    try:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description is not None else []
    except psycopg2.Error as error:
        gone = dialect.is_disconnect(error, driver, cursor)
        if gone:
            connection.invalidate(error)
        raise DBAPIError.instance(
            statement,
            dict(values),
            error,
            psycopg2.Error,
            connection_invalidated=gone,
            dialect=dialect,
        ) from error
    finally:
        cursor.close()


def _as_text(value: str) -> str:
    return value
