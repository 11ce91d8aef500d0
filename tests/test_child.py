"""The wrapper that starts a program as another user."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app import child


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a program as somebody else")
def test_a_program_may_look_for_files_behind_a_closed_door(tmp_path: Path) -> None:
    """PostgreSQL's programs look for each other by access(2), which has rules of its own."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "file").write_text("here")
    look = f"import os, sys; sys.exit(not os.access({str(closed / 'file')!r}, os.R_OK))"
    program = [sys.executable, "-c", f"import os; assert os.getuid() == 65534; {look}"]
    command = child.command(
        program, death_signal=signal.SIGKILL, user=(65534, 65534), any_path=True
    )
    assert subprocess.run(command, check=False).returncode == 0
