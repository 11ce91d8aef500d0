"""A peer as the measuring program sees it: its databases, its workers, its client."""

from __future__ import annotations

import json
import os
import queue
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any

from app import child
from benchmarks.peers import side, work
from tests import servers
from tests.processes import PATIENCE, ROOT, Process, wait_for

BUILTIN = "builtin"  # Metronome, with nodes that only compute
OURS = ("metronome", BUILTIN)
NAMES = (*OURS, "dbos", "absurd", "pgqueuer", "procrastinate", "oban")


class Unavailable(Exception):
    """The peer can't be measured here, and why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client's call came to; times of the monotonic clock, around the library's call."""

    value: Any
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of the journal."""

    at: float
    pid: int
    event: str  # start, end or cut
    tag: str
    number: int


class Peer:
    """One of the compared, with a migrated database of which every measurement gets a copy."""

    def __init__(self, name: str, python: str, url: str, home: Path) -> None:
        self.name = name
        self._python = sys.executable if name in OURS else python
        self._url = url
        self._home = home
        self._template = f"peer_{name}"
        self.told: dict[str, Any] = {}

    def prepare(self) -> None:
        """Find out about it and make its database. Raises Unavailable."""
        self.told = json.loads(self._run("describe", self._url))
        servers.execute(self._url, f"CREATE DATABASE {self._template}")
        self._run("prepare", servers.in_database(self._url, self._template))

    @property
    def durable(self) -> bool:
        """Whether it records steps; otherwise a job is what is counted."""
        return bool(self.told["durable"])

    def _run(self, command: str, url: str) -> str:
        try:
            done = subprocess.run(
                self.command(command),
                env=self.environment(url),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(str(error)) from None
        if done.returncode:
            told = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise Unavailable(told[-1])
        return done.stdout

    def command(self, *arguments: str) -> list[str]:
        """What starts a process of it."""
        return [self._python, "-m", f"benchmarks.peers.with_{self.name}", *arguments]

    def environment(self, url: str, **more: str) -> dict[str, str]:
        """The environment of its processes: nothing of ours that could be taken for settings."""
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("METRONOME_", "PG", "DBOS", "OBAN", "PROCRASTINATE", "ABSURD"))
            and name not in ("DATABASE_URL", "PYTHONPATH")
        }
        return {**clean, "PYTHONPATH": str(ROOT), side.URL: url, **more}

    @contextmanager
    def world(self) -> Iterator[World]:
        """A new copy of its database, and what is to run on it; gone afterwards."""
        name = f"bench_{secrets.token_hex(4)}"
        with servers.database(self._url, name, template=self._template) as url:
            servers.execute(url, "CHECKPOINT")
            directory = self._home / name
            directory.mkdir()
            world = World(self, url, directory, name)
            try:
                yield world
            finally:
                world.close()


class _Worker(Process):
    """A process of the peer's Python."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str]) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                child.command(command, death_signal=SIGKILL),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=env,
            )


class World:
    """One database of a peer, its workers, a client, and the journal of the steps."""

    def __init__(self, peer: Peer, url: str, directory: Path, database: str) -> None:
        self.peer = peer
        self.url = url
        self.database = database
        self._directory = directory
        self._journal = directory / "journal"
        self._journal.touch()
        self._environment = peer.environment(url, **{work.JOURNAL: str(self._journal)})
        self._workers: list[Process] = []
        self._client: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()

    def start(self, profile: str, instance: str = "a") -> Process:
        """A worker with the settings of ``profile``; returns at once."""
        log = self._directory / f"worker-{len(self._workers)}.log"
        command = self.peer.command("worker", profile, instance)
        worker = _Worker(command, log, self._environment)
        self._workers.append(worker)
        return worker

    def warm_up(self, kind: str = "one", count: int = 8) -> None:
        """Return once so many workflows have gone through: connections and caches are there."""
        self.enqueue(kind, [f"warm-{secrets.token_hex(4)}" for _ in range(count)])
        self.wait()

    def _connect(self) -> subprocess.Popen[str]:
        log = (self._directory / "client.log").open("ab")
        client = subprocess.Popen(
            child.command(self.peer.command("client"), death_signal=SIGKILL),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=self._environment,
            text=True,
        )
        log.close()
        threading.Thread(target=_read, args=(client, self._answers), daemon=True).start()
        self._client = client
        self._answer(PATIENCE)
        return client

    def _answer(self, patience: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=patience)
        except queue.Empty:
            raise TimeoutError(f"no answer of the client\n{self.logs()}") from None
        if not line:
            raise RuntimeError(f"the client has ended\n{self.logs()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def call(self, name: str, *arguments: Any, patience: float = PATIENCE) -> Answer:
        """One call of the client."""
        client = self._client or self._connect()
        assert client.stdin is not None
        client.stdin.write(json.dumps({"call": name, "arguments": arguments}) + "\n")
        client.stdin.flush()
        answer = self._answer(patience)
        if "error" in answer:
            raise RuntimeError(f"{name}: {answer['error']}\n{self.logs()}")
        return Answer(answer["value"], answer["began"], answer["ended"])

    def enqueue(self, kind: str, tags: Sequence[str]) -> Answer:
        """Queue a workflow for each tag; the ids."""
        return self.call("enqueue", kind, list(tags), patience=2 * PATIENCE)

    def wait(self, seconds: float = 2 * PATIENCE) -> Answer:
        """Until no workflow is left; its end is that of the last one."""
        return self.call("wait", seconds, patience=seconds + 10)

    def marks(self) -> list[Mark]:
        """What the steps have written so far."""
        text = self._journal.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [_mark(line) for line in lines]

    def wait_for_mark(self, event: str, tag: str, number: int = 0) -> Mark:
        """The first such mark, once it is there."""

        def found() -> Mark | None:
            return next(
                (
                    mark
                    for mark in self.marks()
                    if (mark.event, mark.tag, mark.number) == (event, tag, number)
                ),
                None,
            )

        return wait_for(found, message=lambda: f"{event} of {tag}\n{self.logs()}")

    def logs(self) -> str:
        """The last words of its processes."""
        paths = sorted(self._directory.glob("*.log"))
        return "\n".join(path.read_text(errors="replace")[-1500:] for path in paths)

    def hang_up(self) -> None:
        """End the client, until the next call."""
        if self._client is not None:
            self._client.kill()
            self._client.wait(PATIENCE)
            self._client = None
            self._answers = queue.Queue()

    def close(self) -> None:
        """End all of it."""
        for worker in self._workers:
            worker.kill9()
        self.hang_up()


def _read(client: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
    assert client.stdout is not None
    for line in client.stdout:
        answers.put(line)
    answers.put("")


def _mark(line: str) -> Mark:
    at, pid, event, tag, number = line.split()
    return Mark(float(at), int(pid), event, tag, int(number))
