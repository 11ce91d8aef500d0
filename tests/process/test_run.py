"""``metronome run`` as a user starts it: everything, in one process tree."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import psycopg2
import pytest

from app.config import Settings
from app.embedded import running_url
from tests import processes
from tests.processes import Process

WaitFor = Callable[..., Any]
Start = Callable[..., Process]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "my home", port=processes.free_port(), grace_seconds=30)


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Start ``metronome run``; returns after its banner, or with ``ready=False`` at once."""
    started: list[Process] = []

    def run(*, ready: bool = True, **overrides: str) -> Process:
        process = Process(
            ["-m", "app.cli", "run"],
            tmp_path / f"run-{len(started)}.log",
            processes.environment(settings, **overrides),
            death_signal=signal.SIGTERM,
        )
        started.append(process)
        if ready:
            processes.wait_for(
                lambda: "Try in another terminal" in process.logs() or process.returncode
            )
            assert process.returncode is None, process.logs()
        return process

    yield run
    for process in started:
        with contextlib.suppress(AssertionError):
            process.terminate()


def descendants(pid: int) -> dict[int, str]:
    """The command lines of all processes below ``pid``."""
    found: dict[int, str] = {}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            line = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ")
            found[int(number)] = line.decode(errors="replace")
            found |= descendants(int(number))
    return found


def child_of(process: Process, name: str) -> int | None:
    """The direct child of ``process`` whose command line contains ``name``."""
    for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if name.encode() in Path(f"/proc/{number}/cmdline").read_bytes():
                return int(number)
    return None


def running(pids: dict[int, str]) -> dict[int, str]:
    """Those of ``pids`` that still run: not gone, not a zombie, not another program by now."""
    alive = {}
    for pid, line in pids.items():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() == line:
                alive[pid] = line
    return alive


def ready(settings: Settings) -> bool:
    return processes.http_status(f"http://{settings.address}/readyz") == 200


def query(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    url = running_url(settings.home)
    assert url is not None
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def last_time(path: Path, message: str) -> datetime:
    """When ``message`` was last written to a log of JSON lines, or to PostgreSQL's."""
    line = [line for line in path.read_text().splitlines() if message in line][-1]
    if line.startswith("{"):
        return datetime.fromisoformat(orjson.loads(line)["ts"])
    return datetime.fromisoformat(line[:23] + "+00:00")


def test_the_banner_tells_how_to_use_it(start: Start, settings: Settings) -> None:
    process = start()
    assert ready(settings)
    key = (settings.home / "api-key").read_text().strip()
    assert (settings.home / "api-key").stat().st_mode & 0o777 == 0o600
    banner = process.logs()
    for text in (f"http://{settings.address}\n", f"http://{settings.address}/docs", key):
        assert text in banner
    assert f"PORT={settings.port} METRONOME_HOME='{settings.home}' " in banner
    assert len(query(settings, "SELECT 1 FROM api_keys")) == 1


def test_sigterm_stops_api_then_executor_then_database(start: Start, settings: Settings) -> None:
    process = start()
    tree = descendants(process.pid)
    assert len(tree) > 4
    assert process.terminate() == 0, process.logs()
    assert running(tree) == {}
    assert process.logs().endswith("Stopped.\n")
    logs = settings.home / "log"
    api = last_time(logs / "api.log", "Shutting down: Master")
    executor = last_time(logs / "executor.log", "drain")
    database = last_time(logs / "postgres.log", "fast shutdown request")
    assert api <= executor <= database


def test_a_second_signal_ends_at_once_what_does_not_end(
    start: Start, settings: Settings, wait_for: WaitFor
) -> None:
    process = start(METRONOME_GRACE_SECONDS="600")
    tree = descendants(process.pid)
    executor = child_of(process, "executor")
    assert executor is not None
    os.kill(executor, signal.SIGSTOP)
    process.signal(signal.SIGTERM)
    wait_for(lambda: child_of(process, "gunicorn") is None, message="the end of the API")
    assert child_of(process, "executor") == executor
    process.signal(signal.SIGTERM)
    wait_for(lambda: process.returncode is not None, message=process.logs)
    assert process.returncode == 0
    assert running(tree) == {}


def test_a_second_start_has_the_same_key_and_the_same_data(
    start: Start, settings: Settings
) -> None:
    first = start()
    before = query(settings, "SELECT id, sha256 FROM api_keys")
    key = (settings.home / "api-key").read_text()
    first.terminate()
    second = start()
    assert key.strip() in second.logs()
    assert query(settings, "SELECT id, sha256 FROM api_keys") == before


def test_a_given_bootstrap_key_is_used_and_not_shown(start: Start, settings: Settings) -> None:
    process = start(METRONOME_BOOTSTRAP_KEY="a-key-of-more-than-20-characters")
    assert "a-key-of-more-than-20-characters" not in process.logs()
    assert not (settings.home / "api-key").exists()
    assert len(query(settings, "SELECT 1 FROM api_keys")) == 1


@pytest.mark.parametrize("part", ["gunicorn", "executor", "postgres"])
def test_a_part_that_is_killed_is_started_again(
    start: Start, settings: Settings, wait_for: WaitFor, part: str
) -> None:
    process = start()
    killed = child_of(process, part)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: child_of(process, part) not in (None, killed), message=f"another {part}")
    wait_for(lambda: ready(settings), message=lambda: f"readiness\n{process.logs()}")
    assert "starting it again" in process.logs()


def test_nothing_outlives_a_killed_supervisor_and_the_next_start_recovers(
    start: Start, settings: Settings, wait_for: WaitFor
) -> None:
    first = start()
    query(settings, "CREATE TABLE kept AS SELECT 42 AS answer")
    tree = descendants(first.pid)
    first.kill9()
    wait_for(lambda: not running(tree), message=lambda: f"the end of {running(tree)}")
    start()
    assert query(settings, "SELECT answer FROM kept") == [(42,)]


def test_the_next_start_recovers_when_all_was_killed_at_once(
    start: Start, settings: Settings
) -> None:
    first = start()
    query(settings, "CREATE TABLE kept AS SELECT 42 AS answer")
    for pid in (first.pid, *descendants(first.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    start()
    assert query(settings, "SELECT answer FROM kept") == [(42,)]


def test_a_second_one_in_the_same_home_is_told_who_holds_it(
    start: Start, settings: Settings
) -> None:
    first = start()
    second = start(ready=False, PORT=str(processes.free_port()))
    processes.wait_for(lambda: second.returncode is not None)
    assert second.returncode == 1
    assert f"is in use by process {first.pid}" in second.logs()
    assert ready(settings)


def test_a_port_in_use_is_told_before_anything_is_started(start: Start, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", settings.port)):
        process = start(ready=False)
        processes.wait_for(lambda: process.returncode is not None)
    assert process.returncode == 1
    assert re.fullmatch(
        rf"metronome: port {settings.port} is in use; .*PORT=\d+ make run\n", process.logs()
    )
    assert not settings.home.exists()


def test_a_bad_setting_is_told_without_a_traceback(start: Start) -> None:
    process = start(ready=False, METRONOME_LEASE_SECONDS="soon")
    processes.wait_for(lambda: process.returncode is not None)
    assert process.returncode == 1
    assert "METRONOME_LEASE_SECONDS is 'soon': expected seconds" in process.logs()
    assert "Traceback" not in process.logs()


def test_a_database_that_cannot_be_reached_is_told_without_the_password(start: Start) -> None:
    process = start(ready=False, DATABASE_URL="postgresql://me:hunter2@127.0.0.1:1/x")
    processes.wait_for(lambda: process.returncode is not None)
    assert process.returncode == 1
    assert "can't reach the database of DATABASE_URL=postgresql://me:***@" in process.logs()
    assert "Traceback" not in process.logs()


def test_a_given_database_is_used_and_none_is_started(
    start: Start, settings: Settings, fresh_database_url: str
) -> None:
    process = start(DATABASE_URL=fresh_database_url)
    assert child_of(process, "postgres") is None
    assert process.terminate() == 0
    connection = psycopg2.connect(fresh_database_url)
    cursor = connection.cursor()
    cursor.execute("SELECT count(*) FROM api_keys")
    assert cursor.fetchone() == (1,)
    connection.close()
