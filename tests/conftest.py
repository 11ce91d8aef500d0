"""What all tests share: one PostgreSQL a session, one database a worker, emptied before each test.

Under xdist the controller owns the server and tells its workers the URL, so that a worker that
dies takes nothing along; should the controller be killed, the server ends with it.
"""

from __future__ import annotations

import gc
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import text

from app.config import Settings
from app.db import Database
from app.store.schema import metadata
from tests import processes, servers
from tests.connectors import Example, Receiver
from tests.servers import TestServer

_SERVER = pytest.StashKey[TestServer]()


def _server_url(config: pytest.Config) -> str:
    worker_input = getattr(config, "workerinput", None)
    if worker_input is not None:
        url: str = worker_input["server_url"]
        return url
    if _SERVER not in config.stash:
        config.stash[_SERVER] = TestServer()
    return config.stash[_SERVER].url


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give an xdist worker the server's URL (a hook of xdist)."""
    node.workerinput["server_url"] = _server_url(node.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server at the end of the session."""
    if server := config.stash.get(_SERVER, None):
        del config.stash[_SERVER]
        server.stop()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare the garbage collector the thousands of tests, which all live to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def server_url(pytestconfig: pytest.Config) -> str:
    """The URL of the session's server: for tests that make databases of their own."""
    return _server_url(pytestconfig)


@pytest.fixture(scope="session")
def _worker_database(server_url: str, worker_id: str) -> Iterator[str]:
    name = f"worker_{worker_id}"
    with servers.database(server_url, name, template=servers.TEMPLATE) as url:
        yield url


@pytest.fixture(scope="session")
def _empty(_worker_database: str) -> Iterator[Callable[[], None]]:
    tables = ", ".join(f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables))
    connection = psycopg2.connect(_worker_database)
    connection.autocommit = True
    yield lambda: connection.cursor().execute(tables.replace(", ", ";\n"))
    connection.close()


@pytest.fixture
def database_url(_worker_database: str, _empty: Callable[[], None]) -> str:
    """The URL of this worker's migrated database, with all its tables empty."""
    _empty()
    return _worker_database


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """The worker's database, empty."""
    database = Database(database_url)
    yield database
    database.close()


_numbers = itertools.count()


@pytest.fixture
def fresh_database_url(server_url: str, worker_id: str) -> Iterator[str]:
    """The URL of a new database without any table, for this test alone."""
    name = f"fresh_{worker_id}_{next(_numbers)}"
    with servers.database(server_url, name, template="template1") as url:
        yield url


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """``wait_for(condition, timeout=PATIENCE, message="")``: see ``tests.processes.wait_for``."""
    return processes.wait_for


@pytest.fixture
def silent_url() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.fixture(scope="session")
def _served(
    _worker_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, processes.Process, Path]]:
    directory = tmp_path_factory.mktemp("live")
    settings = processes.live_settings(_worker_database, directory)
    process = processes.start_api(settings, directory)
    yield settings, process, directory
    process.terminate()


@pytest.fixture
def live(
    _served: tuple[Settings, processes.Process, Path], db: Database, tmp_path: Path
) -> Iterator[processes.Live]:
    """A live API on the worker's (empty) database; the test starts the executors it wants."""
    from app.services.keys import ensure_bootstrap_key

    settings, api, _ = _served
    ensure_bootstrap_key(db, settings.bootstrap_key or "")
    live = processes.Live(settings, api, tmp_path)
    yield live
    live.stop()
    with db.connect() as connection:
        # Sessions of killed processes must not hold locks when the next test empties the tables.
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                " AND application_name LIKE 'metronome %'"
            )
        )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A remote side that keeps what it is sent, and answers as the test says."""
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    """The connector of the documentation, as a process."""
    made = Example(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """``with no_thread():`` the system refuses to start another thread."""

    @contextmanager
    def refusing() -> Iterator[None]:
        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            yield

    return refusing
