"""The API and executors as real processes on real sockets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from app import child
from app.config import Settings

ROOT = Path(__file__).resolve().parents[1]

T = TypeVar("T")

PATIENCE = 60.0  # seconds: on however slow a machine, only what hangs takes longer


def wait_for(
    condition: Callable[[], T | None],
    timeout: float = PATIENCE,
    message: str | Callable[[], str] = "",
) -> T:
    """The first true value of ``condition``, asked again and again for ``timeout`` seconds.

    ``message`` (or what it returns) says in the failure what was waited for.
    """
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            told = message() if callable(message) else message
            raise AssertionError(f"not within {timeout:g} s: {told or condition}")
        time.sleep(0.01)


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def http_status(url: str) -> int | None:
    """The status with which ``url`` answers a GET; None where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return None


def environment(settings: Settings, **overrides: str) -> dict[str, str]:
    """The environment for a process with these settings and none of the caller's."""
    names = settings.to_env()
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in names and not name.startswith(("METRONOME_", "PG"))
    }
    return {**clean, **names, "PYTHONPATH": str(ROOT), **overrides}


class Process:
    """A process of ours, its log, and the ways to end it. It dies with the test worker."""

    def __init__(
        self,
        arguments: list[str],
        log: Path,
        env: dict[str, str],
        *,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                child.command([sys.executable, *arguments], death_signal=death_signal),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=env,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code (minus the signal's number); None while it runs."""
        return self._process.poll()

    def logs(self) -> str:
        """Everything that it has written."""
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, where it still runs."""
        if self.returncode is None:
            self._process.send_signal(number)

    def kill9(self) -> None:
        """End it as a crash would."""
        self.signal(signal.SIGKILL)
        self._process.wait(PATIENCE)

    def terminate(self, timeout: float = PATIENCE) -> int:
        """Ask it to end, wait for it, and return its exit code; by force after ``timeout``."""
        self.signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise AssertionError(f"did not end on SIGTERM:\n{self.logs()[-3000:]}") from None


def start_api(settings: Settings, directory: Path, **overrides: str) -> Process:
    """A gunicorn with the API on the settings' host and port, once it answers."""
    arguments = ["-m", "gunicorn", "wsgi:app", "--no-control-socket", "--graceful-timeout", "3"]
    arguments += ["--bind", settings.address, "--worker-class", "gthread"]
    arguments += ["--workers", str(settings.web_workers), "--threads", str(settings.web_threads)]
    process = Process(
        arguments,
        directory / f"api-{settings.port}.log",
        environment(settings, **overrides),
        death_signal=signal.SIGTERM,
    )

    def answers() -> bool:
        assert process.returncode is None, process.logs()
        return http_status(f"http://{settings.address}/healthz") == 200

    try:
        wait_for(answers, message=lambda: f"the API's start\n{process.logs()}")
    except BaseException:
        process.kill9()
        raise
    return process


class Live:
    """A served API and the executors that a test starts, all on the test's database."""

    def __init__(self, settings: Settings, api: Process, directory: Path) -> None:
        self.settings = settings
        self.api = api
        self.base_url = f"http://{settings.address}"
        self.api_key = settings.bootstrap_key or ""
        self._directory = directory
        self.executors: list[Process] = []

    def start_executor(self, **overrides: str) -> Process:
        """One more executor; ``overrides`` are environment variables. Returns without waiting."""
        number = len(self.executors)
        process = Process(
            ["-m", "app.cli", "executor"],
            self._directory / f"executor-{number}.log",
            environment(self.settings, **overrides),
        )
        self.executors.append(process)
        return process

    def wait_until_ready(self) -> None:
        """Return once the API sees the database and an executor."""
        wait_for(
            lambda: http_status(f"{self.base_url}/readyz") == 200,
            message=lambda: "readiness\n" + "\n".join(one.logs()[-2000:] for one in self.executors),
        )

    def stop(self) -> None:
        """End all executors, by force: nothing of a test outlives it."""
        for process in self.executors:
            process.kill9()


def live_settings(database_url: str, home: Path, **changes: Any) -> Settings:
    """Settings for quick tests: short polls, a free port, a lease that no busy machine loses."""
    values: dict[str, Any] = {
        "database_url": database_url,
        "home": home,
        "port": free_port(),
        "bootstrap_key": "test-key-0123456789-abcdef",
        "lease_seconds": 30.0,
        "poll_seconds": 0.2,
        "grace_seconds": 2.0,
        "web_workers": 1,
        "http_allow_private": ("127.0.0.1",),
    }
    return Settings(**{**values, **changes})
