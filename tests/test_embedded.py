from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import text

from app import child
from app.db import Database
from app.embedded import EmbeddedError, EmbeddedPostgres, running_url
from tests.processes import ROOT

WaitFor = Callable[..., Any]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

STARTER = """
import sys
from pathlib import Path
from app.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), durable=False)
server.start()
print(server.pid, flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., EmbeddedPostgres]]:
    made: list[EmbeddedPostgres] = []

    def new(home: Path = tmp_path / "home", *, durable: bool = False) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(home, durable=durable))
        return made[-1]

    yield new
    for server in made:
        server.stop()


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that has started a server in ``home``: it, and the server's pid."""
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path / "home")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        # Leaving the block closes its standard input, at which it stops the server.


def run_sql(url: str, statement: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def alive(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_data_is_there_after_a_stop_and_a_start(make: Callable[..., EmbeddedPostgres]) -> None:
    first = make()
    url = first.start()
    run_sql(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    first.stop()
    assert first.pid is None
    assert make().start() == url
    assert run_sql(url, "SELECT answer FROM kept") == [(42,)]


def test_it_is_utf8_and_listens_on_no_network(make: Callable[..., EmbeddedPostgres]) -> None:
    url = make().start()
    assert run_sql(url, "SHOW server_encoding") == [("UTF8",)]
    assert run_sql(url, "SHOW listen_addresses") == [("",)]
    assert run_sql(url, "SELECT upper('ä€ß')") == [("Ä€ß",)]


def test_the_url_works_for_sqlalchemy(make: Callable[..., EmbeddedPostgres]) -> None:
    database = Database(make().start())
    with database.connect() as connection:
        assert connection.execute(text("SELECT current_user")).scalar_one() == "metronome"
    database.close()


def test_the_running_server_is_found(make: Callable[..., EmbeddedPostgres], tmp_path: Path) -> None:
    server = make()
    assert running_url(tmp_path / "home") is None
    url = server.start()
    assert running_url(tmp_path / "home") == url
    server.stop()
    assert running_url(tmp_path / "home") is None


def test_only_the_owner_can_enter_the_data_and_the_socket(
    make: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    ((socket_directory,),) = run_sql(make().start(), "SHOW unix_socket_directories")
    for directory in (tmp_path / "home" / "pg", Path(socket_directory.strip('"'))):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_short_home_holds_the_socket_too(make: Callable[..., EmbeddedPostgres]) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        server = make(Path(home))
        assert f"host={home}/pg.run&" in server.start()
        server.stop()


def test_a_long_home_has_its_socket_elsewhere_and_leaves_nothing_there(
    make: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    server = make(tmp_path / ("x" * 100))
    ((socket_directory,),) = run_sql(server.start(), "SHOW unix_socket_directories")
    directory = Path(socket_directory.strip('"'))
    assert directory.parent == Path("/tmp")
    server.stop()
    assert not directory.exists()


def test_committed_data_survives_a_kill_of_the_server(
    make: Callable[..., EmbeddedPostgres],
) -> None:
    first = make(durable=True)
    url = first.start()
    run_sql(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.stop()
    make().start()
    assert run_sql(url, "SELECT answer FROM kept") == [(42,)]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_the_server_ends_when_its_starter_is_killed(
    starter: tuple[subprocess.Popen[str], int],
    make: Callable[..., EmbeddedPostgres],
    wait_for: WaitFor,
) -> None:
    process, pid = starter
    process.kill()
    process.wait()
    make().start()  # waits for the end of the other, then takes over
    wait_for(lambda: not alive(pid), message="the end of the first server")


def test_everything_killed_at_once_is_recovered(
    starter: tuple[subprocess.Popen[str], int], make: Callable[..., EmbeddedPostgres]
) -> None:
    process, pid = starter
    os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()
    assert run_sql(make().start(), "SELECT 1") == [(1,)]


def test_a_second_start_in_the_same_home_names_the_holder(
    starter: tuple[subprocess.Popen[str], int], make: Callable[..., EmbeddedPostgres]
) -> None:
    process, pid = starter
    with pytest.raises(EmbeddedError, match=rf"in use by process {process.pid}\b"):
        make().start()
    assert alive(pid)


def test_a_stale_pid_file_with_the_pid_of_another_program_is_ignored(
    make: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    first = make()
    first.start()
    pid_file = tmp_path / "home" / "pg" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    first.stop()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    assert run_sql(make().start(), "SELECT 1") == [(1,)]


def test_an_initdb_that_was_cut_short_is_done_again(
    make: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    (tmp_path / "home" / "pg.new" / "base").mkdir(parents=True)
    assert run_sql(make().start(), "SELECT 1") == [(1,)]


def test_two_run_side_by_side(make: Callable[..., EmbeddedPostgres], tmp_path: Path) -> None:
    one, two = make(tmp_path / "one").start(), make(tmp_path / "two").start()
    run_sql(one, "CREATE TABLE mine ()")
    assert run_sql(two, "SELECT to_regclass('mine')") == [(None,)]


@pytest.mark.parametrize("name", ["a b", "100% ä+'\"", "x" * 100])
def test_any_path_will_do(make: Callable[..., EmbeddedPostgres], tmp_path: Path, name: str) -> None:
    home = tmp_path / name / "home"
    server = make(home)
    url = server.start()
    assert run_sql(url, "SHOW data_directory") == [(str(home / "pg"),)]
    assert Database(url).url.query["host"] == run_sql(url, "SHOW unix_socket_directories")[0][
        0
    ].strip('"').replace('""', '"')
    server.stop()
    assert make(home).start() == url


def test_a_copied_home_leaves_the_socket_of_the_original_alone(
    make: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    original = tmp_path / ("x" * 100)
    first = make(original)
    first.start()
    first.stop()
    copy = tmp_path / ("y" * 100)
    subprocess.run(["cp", "-r", str(original), str(copy)], check=True)
    url = make(original).start()
    assert make(copy).start() != url
    assert run_sql(url, "SHOW data_directory") == [(str(original / "pg"),)]


def test_environment_variables_of_libpq_do_not_mislead(
    make: Callable[..., EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nonexistent")
    assert run_sql(make().start(), "SELECT 1") == [(1,)]


def test_a_home_that_is_a_file_is_an_error_that_says_so(
    make: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.touch()
    with pytest.raises(EmbeddedError, match="can't use"):
        make().start()


def test_data_of_another_version_is_an_error_that_says_so(
    make: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    data = tmp_path / "home" / "pg"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedError, match="written by PostgreSQL 9, but there is only"):
        make().start()


@as_root
def test_root_starts_it_as_another_user(
    make: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)  # as /root is
    server = make()
    url = server.start()
    assert Path(f"/proc/{server.pid}").stat().st_uid != 0
    assert run_sql(url, "SELECT 1") == [(1,)]


@as_root
def test_root_takes_over_the_data_that_a_copy_made_its_own(
    make: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    first = make()
    first.start()
    first.stop()
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(tmp_path / "home"), str(copy)], check=True)
    assert run_sql(make(copy).start(), "SELECT 1") == [(1,)]


@as_root
def test_an_ordinary_user_starts_it_as_itself(tmp_path: Path) -> None:
    user = pwd.getpwnam("nobody")
    tmp_path.chmod(0o777)
    done = subprocess.run(
        child.command(
            [sys.executable, "-c", STARTER, str(tmp_path / "home")],
            death_signal=signal.SIGKILL,
            user=(user.pw_uid, user.pw_gid),
            any_path=True,  # to this interpreter
        ),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home" / "pg").stat().st_uid == user.pw_uid
