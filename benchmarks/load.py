"""A load generator that costs little: one thread, keep-alive connections, ready-made requests.

On a machine of two cores a client of the usual kind would be what is measured.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

RENEWED = 25  # requests

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


@dataclass(slots=True)
class Load:
    """What came of it: how long each answer took, and how many there were of each status."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)  # seconds
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds


def request(method: str, path: str, *, key: str | None = None, body: bytes = b"") -> bytes:
    """A request; a body has to be JSON."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    if body:
        lines.append("Content-Type: application/json")
    if method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Client:
    """One connection with one request at a time on its way."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.socket = self._connect()
        self.received = b""
        self.request = b""
        self.sent = 0.0
        self.answered = 0

    def _connect(self) -> socket.socket:
        opened = socket.create_connection(self._address, timeout=30)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def send(self, request: bytes) -> None:
        self.request, self.received, self.sent = request, b"", time.perf_counter()
        self.socket.sendall(request)

    def renew(self) -> None:
        """Go on with a new connection."""
        self.socket.close()
        self.socket = self._connect()

    def again(self) -> None:
        """The server had closed the connection: send on a new one."""
        self.renew()
        self.socket.sendall(self.request)

    def status(self) -> int | None:
        """Read on; the status once the answer is whole."""
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or length is None or len(body) < int(length[1]):
            return None
        return int(head[9:12])


def drive(address: tuple[str, int], requests: Iterable[bytes], *, connections: int) -> Load:
    """Send all requests, as many at a time as there are connections, each after an answer.

    Each connection is opened anew after ``RENEWED`` requests: who opened them all at once would
    have most of them accepted by one process, and measure how they fell.
    """
    load, left = Load(), iter(requests)
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        client = _Client(address)
        selector.register(client.socket, selectors.EVENT_READ, client)
    begin = time.perf_counter()
    busy = sum(_next(key.data, left) for key in list(selector.get_map().values()))
    while busy:
        for key, _ in selector.select(30):
            client = key.data
            if part := client.socket.recv(65_536):
                client.received += part
            else:
                selector.unregister(client.socket)
                client.again()
                selector.register(client.socket, selectors.EVENT_READ, client)
            if (status := client.status()) is not None:
                load.latencies.append(time.perf_counter() - client.sent)
                load.statuses[status] += 1
                client.answered += 1
                if client.answered % RENEWED == 0:
                    selector.unregister(client.socket)
                    client.renew()
                    selector.register(client.socket, selectors.EVENT_READ, client)
                busy -= not _next(client, left)
    load.seconds = time.perf_counter() - begin
    for key in list(selector.get_map().values()):
        key.data.socket.close()
    selector.close()
    return load


def _next(client: _Client, left: Iterator[bytes]) -> bool:
    request = next(left, None)
    if request is not None:
        client.send(request)
    return request is not None
