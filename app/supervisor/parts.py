"""One part of a running Metronome: a process that is started again when it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path

import orjson

from app import child

log = logging.getLogger("metronome")

FIRST_DELAY = 0.2  # seconds before a new start, doubled for each one that follows soon
LONGEST_DELAY = 30.0
HEALTHY_SECONDS = 30.0  # after living that long, the next delay is the first one again

_LOG_BYTES = 10_000_000
_LOUD = {"warning", "error", "critical"}


class Part:
    """A child process in a session of its own, with its log in a file.

    Warnings and errors, and whatever is not a JSON line (a traceback), go to the console too.
    All methods are for the main thread: the process dies with the thread that started it.
    """

    def __init__(
        self,
        name: str,
        program: Sequence[str],
        *,
        env: Mapping[str, str],
        directory: Path,
        logs: Path,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        self.quiet = False
        self._program = list(program)
        self._env = dict(env)
        self._directory = directory
        self._pass_fds = tuple(pass_fds)
        self._file = RotatingFileHandler(self.log, maxBytes=_LOG_BYTES, backupCount=1)
        self._file.setFormatter(logging.Formatter("%(message)s"))
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._started = 0.0
        self._delay = FIRST_DELAY
        self._start_at: float | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None where it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def ended(self) -> str | None:
        """How the process ended, in words; None while it runs, or before its first start."""
        code = self._process.poll() if self._process else None
        if code is None:
            return None
        return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"

    def start(self) -> None:
        """Start the process."""
        self._process = subprocess.Popen(
            child.command(self._program, death_signal=signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._directory,
            env=self._env,
            pass_fds=self._pass_fds,
        )
        self._started = time.monotonic()
        self._start_at = None
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def watch(self) -> None:
        """Start the process again if it has died, after a while that grows with each death."""
        now = time.monotonic()
        if self._start_at is not None:
            if now >= self._start_at:
                self.start()
        elif told := self.ended:
            if now - self._started >= HEALTHY_SECONDS:
                self._delay = FIRST_DELAY
            log.warning("%s ended (%s); starting it again in %g s", self.name, told, self._delay)
            self._signal_group(signal.SIGTERM)  # what it may have left behind
            self._start_at = now + self._delay
            self._delay = min(self._delay * 2, LONGEST_DELAY)

    def ask_to_stop(self) -> None:
        """Ask the process to finish what it does and end."""
        self.quiet = True
        self._start_at = None
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End the process, and all that it has started, at once."""
        self._signal_group(signal.SIGKILL)

    def close(self) -> None:
        """Wait for the end of a process that was stopped, and close its log."""
        if self._process:
            self._process.wait()
            self._signal_group(signal.SIGKILL)
        self.drain()
        self._file.close()

    def drain(self) -> None:
        """Wait until all that an ended process has written is read and shown."""
        if self._reader:
            self._reader.join(2)

    def _signal_group(self, number: signal.Signals) -> None:
        # Its session has the number of the process, for as long as one of its members lives.
        if self._process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self._file.handle(logging.makeLogRecord({"msg": line}))
            self._show(line)

    def _show(self, line: str) -> None:
        try:
            entry = orjson.loads(line)
            level, message = entry["level"], entry["msg"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            if line and not self.quiet:
                log.warning("%s: %s", self.name, line)
            return
        if level in _LOUD and not self.quiet:
            known = {"ts", "level", "logger", "msg", "exception"}
            fields = "".join(f" {key}={entry[key]}" for key in entry if key not in known)
            last = entry.get("exception", "").strip().splitlines()[-1:]
            number = logging.getLevelNamesMapping()[level.upper()]
            log.log(number, "%s: %s%s", self.name, " ".join([message, *last]), fields)
