"""What the tests of node kinds share: contexts, and servers on 127.0.0.1 that answer as told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from app.domain.outcomes import Outcome
from app.domain.stop import StopSignal
from app.nodes import REGISTRY
from app.nodes.base import Context, News, NodeLimits, Problem
from tests.processes import PATIENCE

STARTED = datetime(2026, 1, 1, tzinfo=UTC)


def context_of(
    kind: str,
    config: dict[str, Any],
    scope: dict[str, Any] | None = None,
    *,
    label: str | None = None,
    handles: tuple[str, ...] = (),
    stop: StopSignal | None = None,
    **limits: Any,
) -> Context:
    """What the interpreter hands to a node that starts."""
    limits.setdefault("http_allowed_private", ("127.0.0.1",))
    return Context(
        organization_id="org-1",
        metronome_id="metronome-1",
        run_id="run-1",
        step_id="step-1",
        node_id="node-1",
        node_label=label,
        attempt=1,
        config=config,
        input=REGISTRY[kind].bind(config, scope or {}),
        scope=scope or {},
        handles=frozenset(handles),
        started_at=STARTED,
        idempotency_key="key-1",
        stop=stop or StopSignal(),
        limits=NodeLimits(**limits),
    )


@pytest.fixture
def run() -> Callable[..., Outcome]:
    """Run one node as the interpreter does."""

    def call(kind: str, config: dict[str, Any], *args: Any, **more: Any) -> Outcome:
        return REGISTRY[kind].run(context_of(kind, config, *args, **more))

    return call


@pytest.fixture
def resume() -> Callable[..., Outcome]:
    """Look at a parked node again, as the interpreter does."""

    def call(
        kind: str,
        config: dict[str, Any],
        result: dict[str, Any] | None,
        parked: dict[str, Any] | None = None,
        *,
        waited_ms: int = 1500,
        handles: tuple[str, ...] = (),
    ) -> Outcome:
        context = replace(context_of(kind, {}, handles=handles), config=config, input={})
        return REGISTRY[kind].resume(context, News(result, parked or {}, waited_ms))

    return call


@pytest.fixture
def faults() -> Callable[..., list[str]]:
    """The fields of a config's faults."""

    def call(kind: str, config: dict[str, Any], handles: tuple[str, ...] = ()) -> list[str]:
        found: list[Problem] = list(REGISTRY[kind].check(config, frozenset(handles)))
        return [problem.field for problem in found]

    return call


@pytest.fixture
def lacks() -> Callable[..., list[str]]:
    """The fields that a config lacks before its node can run; it can be saved all the same."""

    def call(kind: str, config: dict[str, Any]) -> list[str]:
        assert list(REGISTRY[kind].check(config, frozenset())) == []
        return [problem.field for problem in REGISTRY[kind].missing(config)]

    return call


class Server:
    """Answers each connection with the next of ``answers`` (bytes, or a function), once."""

    def __init__(self, *answers: Any, tls: Any = None) -> None:
        self.requests: list[str] = []
        self.seen = threading.Event()
        self._answers = list(answers)
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
                self._open.append(connection)
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                    self._open[-1] = connection
                self._answer(connection)
            except (OSError, ValueError):
                if self._socket.fileno() < 0:
                    return

    def _answer(self, connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            part = connection.recv(65_536)
            if not part:
                return
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(
            (
                int(line[15:])
                for line in head.lower().split(b"\r\n")
                if line[:15] == b"content-length:"
            ),
            0,
        )
        while len(body) < length:
            body += connection.recv(65_536)
        self.requests.append((head + b"\r\n\r\n" + body).decode("latin-1"))
        answer = self._answers.pop(0) if self._answers else answer_of(200)
        self.seen.set()
        if callable(answer):
            answer(connection)
        else:
            connection.sendall(answer)
            connection.close()

    def close(self) -> None:
        """End it and every connection."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._open:
            connection.close()
        self._thread.join(PATIENCE)


def answer_of(status: int, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of an HTTP answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def header(request: str, name: str) -> list[str]:
    """The values of a header in a request as it came."""
    lines = request.partition("\r\n\r\n")[0].split("\r\n")[1:]
    return [v.strip() for n, _, v in (line.partition(":") for line in lines) if n.lower() == name]


@pytest.fixture
def answer() -> Callable[..., bytes]:
    """Make the bytes of an HTTP answer."""
    return answer_of


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers; they end with the test."""
    servers: list[Server] = []

    def start(*answers: Any, tls: Any = None) -> Server:
        servers.append(Server(*answers, tls=tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
