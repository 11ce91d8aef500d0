"""The executor as a process: how it takes signals."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.processes import Process, environment, live_settings, wait_for


def start_executor(database_url: str, directory: Path) -> Process:
    process = Process(
        ["-m", "app.cli", "executor"],
        directory / "executor.log",
        environment(live_settings(database_url, directory)),
    )
    wait_for(lambda: "executor started" in process.logs(), message=process.logs)
    return process


def test_sigterm_ends_it(database_url: str, tmp_path: Path) -> None:
    process = start_executor(database_url, tmp_path)
    assert process.terminate() == 0


def test_signals_at_any_moment_never_hang_it(database_url: str, tmp_path: Path) -> None:
    """They once met in a handler, on a lock that the interrupted thread held itself."""
    process = start_executor(database_url, tmp_path)

    def ended() -> bool:
        for _ in range(500):
            process.signal(signal.SIGTERM)
        return process.returncode is not None

    try:
        wait_for(ended, message=process.logs)
        assert process.returncode == 0
    finally:
        process.kill9()
