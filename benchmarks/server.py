"""What a benchmark runs on: a database of its own, and the API and executors as real processes."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg2

from app.config import Settings
from app.db import Database, RawConnection
from app.domain.models import Actor
from app.embedded import EmbeddedPostgres
from app.ids import new_id
from app.services import keys, metronomes
from app.services.keys import ensure_bootstrap_key
from app.store import versions
from app.store.leases import DUE_CHANNEL
from app.store.migrations import upgrade
from tests import processes, servers
from tests.processes import PATIENCE, ROOT, Process, wait_for

KEY = "benchmark-key-0123456789"
FUNCTIONS = ROOT / "tests" / "functions"  # the function nodes' functions


@contextmanager
def server(*, own: bool = False) -> Iterator[Server]:
    """A durable PostgreSQL in a temporary directory; unless ``own``, that of DATABASE_URL first.

    Call it in the main thread: what it starts ends with the thread that started it.
    """
    before = signal.signal(signal.SIGTERM, _leave)
    home = Path(tempfile.mkdtemp(prefix="metronome-benchmark-"))
    home.chmod(0o711)  # the server's user has to pass
    url = None if own else Settings.from_env().database_url
    embedded = EmbeddedPostgres(home / "var") if url is None else None
    try:
        yield Server(url or (embedded.start() if embedded else ""), home, embedded)
    finally:
        if embedded is not None:
            embedded.stop()
        shutil.rmtree(home, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # an exception, so that everything is tidied up


class Server:
    """A PostgreSQL server, and ``home`` for what has to be written down meanwhile."""

    def __init__(self, url: str, home: Path, embedded: EmbeddedPostgres | None) -> None:
        self.url = url
        self.home = home
        self.embedded = embedded

    @contextmanager
    def bench(self, **changes: Any) -> Iterator[Bench]:
        """A migrated database in it, dropped at the end; ``changes`` are to the Settings."""
        name = f"bench_{secrets.token_hex(4)}"
        with servers.database(self.url, name, template="template1") as url:
            upgrade(url)
            directory = self.home / name
            directory.mkdir()
            bench = Bench(url, directory, changes, own_server=self.embedded is not None)
            try:
                yield bench
            finally:
                bench.close()


class Plan:
    """A workflow whose runs can be queued in bulk, with the version that its draft has become."""

    def __init__(self, bench: Bench, name: str, definition: dict[str, Any]) -> None:
        self.name = name
        metronome = metronomes.create(bench.db, bench.actor, name=name, definition=definition)
        with bench.db.connect() as connection:
            version_id = versions.of_draft(connection, bench.actor, metronome.id)
        assert version_id is not None
        self.metronome_id = metronome.id
        self.version_id = version_id
        self.columns = (
            bench.actor.organization_id,
            metronome.id,
            bench.actor.user_id,
            version_id,
        )


_QUEUE = """
INSERT INTO runs (id, organization_id, metronome_id, user_id, version_id, trigger_type, input,
    status, due_at)
SELECT id, %s, %s, %s, %s, 'manual', '{}', 'queued', clock_timestamp()
FROM unnest(%s::text[]) AS id
"""


def queue(connection: RawConnection, plan: Plan, count: int, *, notify: bool = True) -> list[str]:
    """Queue ``count`` runs of ``plan`` in one transaction, as so many requests would; their ids."""
    ids = [new_id("run") for _ in range(count)]
    with connection.cursor() as cursor:
        cursor.execute(_QUEUE, (*plan.columns, ids))
        if notify:
            cursor.execute(f"NOTIFY {DUE_CHANNEL}")
    return ids


class Bench:
    """One database, and the processes that work on it."""

    def __init__(
        self, url: str, directory: Path, changes: dict[str, Any], *, own_server: bool
    ) -> None:
        self.own_server = own_server
        values: dict[str, Any] = {
            "database_url": url,
            "home": directory,
            "port": processes.free_port(),
            "bootstrap_key": KEY,
            "http_allow_private": ("127.0.0.1",),
            "log_level": "warning",
        }
        self.settings = Settings(**{**values, **changes})
        self.directory = directory
        self.db = Database(url, pool_size=20)
        ensure_bootstrap_key(self.db, KEY)
        self.actor: Actor = keys.authenticate(self.db, KEY)
        self.connection = self.db.raw(application_name="benchmark")
        self.processes: list[Process] = []
        self._api: Process | None = None

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement, from the main thread; its rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def reconnect(self) -> None:
        """Open the connection of ``sql`` again, once the server answers."""

        def opened() -> bool:
            try:
                self.connection = self.db.raw(application_name="benchmark")
            except psycopg2.OperationalError:
                return False
            return True

        wait_for(opened, message="a connection to the database")

    def start_api(self, **overrides: str) -> Process:
        """gunicorn with the API, once it answers; ``overrides`` are environment variables."""
        process = self._api = processes.start_api(self.settings, self.directory, **overrides)
        self.processes.append(process)
        return process

    def start_executor(self, *, wait: bool = True, **overrides: str) -> Process:
        """An executor, once it has said that it lives; it knows the functions of the tests."""
        path = os.pathsep.join((str(ROOT), str(FUNCTIONS)))
        process = Process(
            ["-m", "app.cli", "executor"],
            self.directory / f"executor-{len(self.processes)}.log",
            processes.environment(self.settings, **{"PYTHONPATH": path, **overrides}),
        )
        self.processes.append(process)
        if wait:
            self.wait_for_executor(process)
        return process

    def wait_for_executor(self, process: Process) -> None:
        """Return once the executor has said that it lives."""

        def lives() -> bool:
            assert process.returncode is None, process.logs()
            return bool(self.sql("SELECT 1 FROM executors WHERE id LIKE %s", f"%:{process.pid}:%"))

        wait_for(lives, message=lambda: f"the executor's start\n{process.logs()}")

    def wait_until_idle(self, timeout: float = PATIENCE) -> None:
        """Return once no run is due, running or held."""

        def idle() -> bool:
            return not self.sql(
                "SELECT 1 FROM runs WHERE status IN ('queued', 'running')"
                " OR lease_token IS NOT NULL AND status NOT IN ('queued', 'running') LIMIT 1"
            )

        wait_for(idle, timeout, "the end of all runs")

    def stop(self, *stopped: Process) -> None:
        """Ask processes to end, and wait for them."""
        for process in stopped:
            process.terminate()
            self.processes.remove(process)

    def close(self) -> None:
        """End everything."""
        for process in self.processes:
            if process is self._api:  # killed, it would leave its workers behind
                process.terminate()
            process.kill9()
        self.connection.close()
        self.db.close()
