"""The life of the private PostgreSQL: create, start, stop, and recover from every kind of kill.

Two locks in the home directory keep order. ``pg.owner`` is held by the process that started the
server. ``pg.lock`` is inherited by all processes of the server, so it is free only once the last
of them has gone, however they went: whoever gets it may take a leftover postmaster.pid for stale.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg2

from app import child
from app.embedded import account, binaries
from app.embedded.account import Account
from app.embedded.binaries import Binaries, EmbeddedError

NAME = "metronome"  # of the database and of its user
PORT = 5432  # names the socket; nothing listens on it

_SOCKET = f".s.PGSQL.{PORT}"
_SOCKET_PATH_BYTES = 90  # what every system allows for the path of a socket, with a margin
_START_SECONDS = 120  # recovery after a crash included
_STOP_SECONDS = 20
_LOG_BYTES = 10_000_000

_OPTIONS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "jit": "off",  # no statement of ours is long enough to be worth compiling
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

# Nothing of the caller's environment: PGDATA or LD_LIBRARY_PATH could lead the programs astray.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "HOME": "/"}


class EmbeddedPostgres:
    """The PostgreSQL whose data is in ``home``/pg.

    ``durable`` False gives up safety against power failure for speed: for tests. Start it from the
    main thread: the server stops when the thread that started it ends, even by ``kill -9``.
    """

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        self.home = home
        self.data = home / "pg"
        self.durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._owner_lock: int | None = None
        self._socket_directory: Path | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the server; None where this object has none running."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def start(self) -> str:
        """Start the server, create it where there is none yet, and return its URL.

        :raises EmbeddedError: if it can't be started, with the reason.
        """
        try:
            # Others may pass (not list) what root creates: the server's user has to.
            self.home.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
            self._owner_lock = _lock_owner(self.home)
        except OSError as error:
            raise EmbeddedError(f"can't use {self.home}: {error.strerror}") from None
        server_lock = None
        try:
            server_lock = _lock_server(self.home, self.data)
            return self._start(server_lock)
        except BaseException:
            self.stop()
            raise
        finally:
            if server_lock is not None:
                os.close(server_lock)  # the server has inherited it

    def _start(self, server_lock: int) -> str:
        programs = binaries.find(_data_version(self.data))
        user = account.choose(self.data, programs.directory)
        if not self.data.exists():
            self._create(programs, user)
        user.own(self.data)
        self.data.chmod(0o700)
        _remove_stale_pid(self.data)
        _write_access_rules(self.data)
        user.own(self.data)
        directory = self._socket_directory = _socket_directory(self.home, user)
        log = _open_log(self.home)
        try:
            self._process = subprocess.Popen(
                child.command(
                    [programs.program("postgres"), "-D", str(self.data), *self._options(directory)],
                    death_signal=signal.SIGINT,
                    user=user.ids,
                    any_path=user.any_path,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_ENVIRONMENT,
                pass_fds=[server_lock],
            )
            url = _url(directory)
            self._wait_until_ready(url, log)
        finally:
            os.close(log)
        return url

    def _options(self, directory: Path) -> list[str]:
        quoted = str(directory).replace('"', '""')
        options = {**_OPTIONS, "port": str(PORT), "unix_socket_directories": f'"{quoted}"'}
        if not self.durable:
            options |= _NOT_DURABLE
        return [part for name, value in options.items() for part in ("-c", f"{name}={value}")]

    def _create(self, programs: Binaries, user: Account) -> None:
        new = self.home / "pg.new"
        if new.exists():  # an earlier start was killed here
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        user.own(new)
        locale = ["--locale=C"]
        if programs.major >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        arguments = [programs.program("initdb"), "-D", str(new), "-U", NAME, "--encoding=UTF8"]
        arguments += [*locale, "--auth=peer"]
        if not self.durable:
            arguments.append("--no-sync")
        done = subprocess.run(
            child.command(
                arguments, death_signal=signal.SIGTERM, user=user.ids, any_path=user.any_path
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_ENVIRONMENT,
            check=False,
        )
        if done.returncode:
            shutil.rmtree(new, ignore_errors=True)
            raise EmbeddedError(f"initdb failed:\n{done.stdout.decode(errors='replace').strip()}")
        new.rename(self.data)

    def _wait_until_ready(self, url: str, log: int) -> None:
        assert self._process is not None  # noqa: S101
        begin = os.fstat(log).st_size
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                _create_database(url)
                return
            except psycopg2.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    reason = _log_since(self.home, begin) or str(error)
                    raise EmbeddedError(f"PostgreSQL did not start:\n{reason.strip()}") from None
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server, open connections or not; nothing that was committed is lost."""
        if self._process is not None:
            # Fast, then without a clean end (the next start recovers), then by force.
            steps = ((signal.SIGINT, _STOP_SECONDS), (signal.SIGQUIT, 5), (signal.SIGKILL, 5))
            for number, seconds in steps:
                if self._process.poll() is None:
                    self._process.send_signal(number)
                    try:
                        self._process.wait(seconds)
                    except subprocess.TimeoutExpired:
                        continue
            self._process = None
        if self._socket_directory is not None:
            shutil.rmtree(self._socket_directory, ignore_errors=True)
            self._socket_directory = None
        if self._owner_lock is not None:
            os.close(self._owner_lock)
            self._owner_lock = None


def running_url(home: Path) -> str | None:
    """The URL of the private PostgreSQL that runs in ``home``; None where none does."""
    try:
        lock = os.open(home / "pg.lock", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        lines = _pid_file(home / "pg")
        return _url(Path(lines[4])) if len(lines) > 4 else None
    finally:
        os.close(lock)


def _url(directory: Path) -> str:
    # The port is said because libpq would take it from PGPORT.
    return f"postgresql://{NAME}@/{NAME}?host={quote(str(directory))}&port={PORT}"


def _data_version(data: Path) -> int | None:
    if not data.exists():
        return None
    try:
        return int((data / "PG_VERSION").read_text())
    except (OSError, ValueError) as error:
        raise EmbeddedError(f"{data} is not the data of a PostgreSQL: {error}") from None


def _lock_owner(home: Path) -> int:
    lock = os.open(home / "pg.owner", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(lock, 20, 0).decode().strip()
        os.close(lock)
        raise EmbeddedError(
            f"{home} is in use by process {pid}:"
            " stop that, or set METRONOME_HOME to another directory"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _lock_server(home: Path, data: Path) -> int:
    lock = os.open(home / "pg.lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _STOP_SECONDS
    asked = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            pid = _live_postmaster(data)
            if time.monotonic() > deadline:
                os.close(lock)
                raise EmbeddedError(
                    f"an earlier PostgreSQL in {data} does not end (process {pid or 'unknown'})"
                ) from None
            if pid and not asked:  # its owner was killed; it was told, but perhaps not on every OS
                os.kill(pid, signal.SIGINT)
                asked = True
            time.sleep(0.02)


def _pid_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []


def _live_postmaster(data: Path) -> int | None:
    """The process id in postmaster.pid, if that really is a PostgreSQL that runs on ``data``."""
    lines = _pid_file(data)
    if not lines or not lines[0].isdigit():
        return None
    pid = int(lines[0])
    try:
        if Path("/proc/self").exists():
            # A process id is soon taken by another program: by our own, in a restarted container.
            return pid if Path(f"/proc/{pid}/cwd").samefile(data) else None
        os.kill(pid, 0)
    except OSError:
        return None
    return pid


def _remove_stale_pid(data: Path) -> None:
    if pid := _live_postmaster(data):
        raise EmbeddedError(f"another PostgreSQL runs on {data}: process {pid}")
    (data / "postmaster.pid").unlink(missing_ok=True)


def _write_access_rules(data: Path) -> None:
    """Let in the user who starts the server, as its only role, and nobody else."""
    user = account.connecting_user()
    method = "peer map=owner" if user else "trust"  # without a name, the closed directory must do
    for name, line in (
        ("pg_hba.conf", f"local all {NAME} {method}"),
        ("pg_ident.conf", f'owner "{user}" {NAME}' if user else ""),
    ):
        path = data / name
        path.unlink(missing_ok=True)
        path.write_text(f"# Written at each start.\n{line}\n")
        path.chmod(0o600)


def _socket_directory(home: Path, user: Account) -> Path:
    """A directory for the socket that only the server's user and root can enter.

    It stays the same from start to start, so that clients find the server again.
    """
    directory = home / "pg.run"
    if len(os.fsencode(directory / _SOCKET)) >= _SOCKET_PATH_BYTES:
        directory = _short_directory(home / "pg.socket")
    else:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
    user.own(directory)
    return directory


def _short_directory(record: Path) -> Path:
    """A directory of our own in /tmp: the one in ``record``, unless somebody else has it.

    The record also says whose it is: a copy of the home directory must not take it.
    """
    known = record.read_text().splitlines() if record.exists() else []
    if known[1:] == [str(record)]:
        directory = Path(known[0])
        shutil.rmtree(directory, ignore_errors=True)  # left by a start that was killed
        try:
            directory.mkdir(mode=0o700)
            return directory
        except OSError:
            pass
    directory = Path(tempfile.mkdtemp(prefix="metronome-", dir="/tmp"))
    record.write_text(f"{directory}\n{record}\n")
    return directory


def _open_log(home: Path) -> int:
    log = home / "log" / "postgres.log"
    log.parent.mkdir(exist_ok=True, mode=0o700)
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _log_since(home: Path, begin: int) -> str:
    with (home / "log" / "postgres.log").open("rb") as log:
        log.seek(begin)
        return log.read()[-4000:].decode(errors="replace")


def _create_database(url: str) -> None:
    try:
        psycopg2.connect(url, connect_timeout=5).close()
    except psycopg2.OperationalError as error:
        if f'database "{NAME}" does not exist' not in str(error):
            raise
        connection = psycopg2.connect(url, dbname="postgres", connect_timeout=5)
        try:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {NAME}")
        finally:
            connection.close()
