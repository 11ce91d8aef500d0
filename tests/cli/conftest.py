from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.processes import PATIENCE, ROOT, Live, environment

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def command_line(live: Live, *arguments: str, **variables: str) -> dict[str, Any]:
    """What ``subprocess`` needs to run ``metronome`` in a terminal beside the server."""
    return {
        "args": [sys.executable, "-m", "app.cli", *arguments],
        "cwd": ROOT,
        "env": environment(live.settings, COLUMNS="80", **variables),
        "text": True,
        "encoding": "utf-8",
    }


@pytest.fixture
def metronome(live: Live) -> Command:
    """``metronome("runs", "list", stdin="", VARIABLE="value")`` as a process of its own."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        line = command_line(live, *arguments, **variables)
        return subprocess.run(**line, input=stdin, capture_output=True, timeout=2 * PATIENCE)

    return run
