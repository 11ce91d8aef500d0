"""The PostgreSQL of a test session, and the databases that are made in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2

from app.embedded import EmbeddedPostgres
from app.store.migrations import upgrade

TEMPLATE = "migrated"


class TestServer:
    """One server, not durable, with a template database that is migrated once."""

    __test__ = False

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="metronome-tests-"))
        self._server = EmbeddedPostgres(self._home / "home", durable=False)
        try:
            self.url = self._server.start()
            execute(self.url, f"CREATE DATABASE {TEMPLATE}")
            upgrade(in_database(self.url, TEMPLATE))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and remove its data."""
        self._server.stop()
        shutil.rmtree(self._home, ignore_errors=True)


def in_database(url: str, name: str) -> str:
    """``url`` with another database's name."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def execute(url: str, statement: str) -> None:
    """Run one statement outside of a transaction."""
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        connection.cursor().execute(statement)
    finally:
        connection.close()


@contextmanager
def database(url: str, name: str, *, template: str) -> Iterator[str]:
    """A new database that is gone afterwards, whoever is still connected; yields its URL."""
    execute(url, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield in_database(url, name)
    finally:
        execute(url, f"DROP DATABASE {name} WITH (FORCE)")
