"""What ``metronome run`` does: a whole Metronome in one terminal.

It starts a private PostgreSQL (unless DATABASE_URL names one), migrates it, sees that there is an
API key, then starts gunicorn and an executor, and starts them again when they die. All of them end
with it: in order on Ctrl-C or SIGTERM, and by the kernel's hand when it is killed.

It holds the listening socket itself, so that requests wait, and are not refused, while gunicorn
starts again.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from app import logs
from app.config import Settings
from app.embedded import EmbeddedError, EmbeddedPostgres
from app.supervisor import listening, setup
from app.supervisor.parts import Part

log = logging.getLogger("metronome")

CHECKOUT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0
POLL_SECONDS = 0.2


class StartError(Exception):
    """Metronome can't be started; the message says why."""


def run(settings: Settings, *, hint: str | None = None) -> int:
    """Run Metronome until it is told to stop; returns the exit code.

    ``hint`` is the command that the banner tells to try next.
    """
    logs.configure("warning", pretty=True)
    supervisor = Supervisor(settings)
    try:
        supervisor.start()
        if not supervisor.stopping:
            print(setup.banner(supervisor.settings, supervisor.api_key, hint), flush=True)
        supervisor.watch()
        print("Stopping (Ctrl-C again: at once).", flush=True)
        supervisor.stop()
        print("Stopped.", flush=True)
        return 0
    except (StartError, EmbeddedError, listening.ListenError, setup.SetupError) as error:
        print(f"metronome: {error}", file=sys.stderr)
        return 1
    finally:
        supervisor.stop()


class Supervisor:
    """The parts of one Metronome, in the order in which they are started."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.api_key: str | None = None
        self._signals = 0
        self._server: EmbeddedPostgres | None = None
        self._parts: list[Part] = []
        self._socket: listening.Listener | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        # Only counted: the main loop looks at it, so no start or stop is ever cut in the middle.
        self._signals += 1

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._signals > 0

    def start(self) -> None:
        """Start all parts, and return when the API says that it is ready, or when told to stop."""
        self._socket = listening.open_listener(self.settings)
        logs_directory = setup.prepare_home(self.settings.home)
        if self.settings.database_url is None:
            self._server = EmbeddedPostgres(self.settings.home)
            self.settings = replace(self.settings, database_url=self._server.start())
        self.api_key = setup.prepare_database(self.settings)
        env = self.settings.child_environment()
        for name, program, fds in (
            ("api", setup.gunicorn(self.settings, self._socket.fileno()), [self._socket.fileno()]),
            ("executor", setup.executor(), []),
        ):
            if not self.stopping:
                part = Part(
                    name, program, env=env, directory=CHECKOUT, logs=logs_directory, pass_fds=fds
                )
                self._parts.append(part)
                part.start()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self.stopping and not listening.is_ready(self.settings):
            for part in self._parts:
                if part.ended:
                    part.drain()
                    raise StartError(f"{part.name} did not start ({part.ended}): see {part.log}")
            if time.monotonic() > deadline:
                logs_directory = self.settings.home / "log"
                raise StartError(f"not ready in {READY_SECONDS:g} s: see {logs_directory}")
            time.sleep(POLL_SECONDS / 4)

    def watch(self) -> None:
        """Start again whatever dies, until told to stop."""
        while not self.stopping:
            time.sleep(POLL_SECONDS)
            self._watch_server()
            for part in self._parts:
                part.watch()

    def _watch_server(self) -> None:
        if self._server is None or self._server.pid is not None:
            return
        log.warning("PostgreSQL ended; starting it again")
        self._server.stop()
        try:
            self._server.start()
        except EmbeddedError as error:
            log.error("%s", error)
            time.sleep(1)

    def stop(self) -> None:
        """Stop everything in order: the API, the executor, the database. A second signal forces."""
        if self._socket is not None:
            self._socket.close()
        while self._parts:
            part = self._parts.pop(0)
            part.ask_to_stop()
            deadline = time.monotonic() + self.settings.grace_seconds + 5
            while part.pid and self._signals < 2 and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS / 10)
            if part.pid:
                log.warning("%s did not end in time and is killed", part.name)
                part.kill()
            part.close()
        if self._server is not None:
            self._server.stop()
