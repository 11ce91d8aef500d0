"""HTTP connections that end when told to: at a deadline, or on the stop signal, whatever they do.

No timeout of a client library ends a server that sends one byte a second. Here, a timer and the
stop signal shut the socket down under the library, which then fails at once. Resolving can't be
shut down, so it runs in a thread of its own that is left behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import DecodeError, HTTPError

from app.domain.stop import StopSignal
from app.nodes.guard import Endpoint, checked

_CONNECT_SECONDS = 10.0  # for one address, so that the next one gets its turn
_SLICE_MS = 20  # how often a connect in progress looks whether it was cut


class Cut(Exception):
    """The deadline has passed or the stop signal came; ``Call.cut_by`` says which."""


class Call:
    """The time that one run of a node may spend on the network; use it as a context manager."""

    def __init__(self, stop: StopSignal, seconds: float) -> None:
        self.cut_by: Literal["stop", "timeout"] | None = None
        self.sent = False  # whether the server may have seen a request
        self._stop = stop
        self._deadline = time.monotonic() + seconds
        self._news = threading.Event()
        self._lock = threading.Lock()
        self._held: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut, ("timeout",))
        self._timer.daemon = True
        self._undo: Callable[[], None] = lambda: None

    def __enter__(self) -> Call:
        self._timer.start()
        self._undo = self._stop.on_stop(lambda: self._cut("stop"))
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._undo()
        self._let_go()

    def remaining(self) -> float:
        """Seconds until the deadline, 0.0 after it."""
        return max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """Raise Cut where the call was cut."""
        if self.cut_by is not None:
            raise Cut

    def wait(self, seconds: float) -> None:
        """Sleep; raises Cut as soon as the call is cut."""
        self._news.clear()
        self.check()
        self._news.wait(seconds)
        self.check()

    def connect(self, host: str, port: int, allowed: Iterable[str]) -> socket.socket:
        """A socket that is connected to a checked address of ``host``.

        Raises Cut, AddressRefused, or OSError of the last address that was tried.
        """
        endpoints = self._resolve(host, port, tuple(allowed))
        for index, endpoint in enumerate(endpoints):
            try:
                return self._connect(endpoint)
            except OSError:
                if index == len(endpoints) - 1:
                    raise
        raise AssertionError("unreachable: a host has an address at least")

    def _resolve(self, host: str, port: int, allowed: Sequence[str]) -> list[Endpoint]:
        answers: list[list[Endpoint] | Exception] = []

        def work() -> None:
            try:
                answers.append(checked(host, port, allowed))
            except Exception as error:
                answers.append(error)
            self._news.set()

        self._news.clear()
        self.check()
        threading.Thread(target=work, name="resolve", daemon=True).start()
        self._news.wait(self.remaining() + 1.0)
        if not answers:
            self.check()
            raise TimeoutError
        answer = answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _connect(self, endpoint: Endpoint) -> socket.socket:
        sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            code = sock.connect_ex(endpoint.address)
            if code == errno.EINPROGRESS:
                code = self._connected(sock)
            if code:
                raise OSError(code, os.strerror(code))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(self.remaining() + 1.0)
            self._hold(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def _connected(self, sock: socket.socket) -> int:
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        give_up = time.monotonic() + _CONNECT_SECONDS
        while not poll.poll(_SLICE_MS):
            self.check()
            if time.monotonic() > give_up:
                return errno.ETIMEDOUT
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _hold(self, sock: socket.socket) -> None:
        """Remember the connection under a second descriptor, which TLS can't take away."""
        copy = sock.dup()
        with self._lock:
            old, self._held = self._held, copy
            cut = self.cut_by
        if old is not None:
            old.close()
        if cut is not None:
            raise Cut

    def _let_go(self) -> None:
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            held.close()

    def _cut(self, reason: Literal["stop", "timeout"]) -> None:
        with self._lock:
            if self.cut_by is None:
                self.cut_by = reason
            if self._held is not None:
                with contextlib.suppress(OSError):  # the server may have closed it already
                    self._held.shutdown(socket.SHUT_RDWR)
        self._news.set()


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """The TLS settings: the system's certificate authorities, host names verified."""
    return ssl.create_default_context()


class _Plain(HTTPConnection):
    """An HTTP connection over a socket of ours."""

    call: Call
    allowed: tuple[str, ...]

    def _new_conn(self) -> socket.socket:
        return self.call.connect(self.host, self.port or 80, self.allowed)


class _Tls(HTTPSConnection):
    """The same over TLS; the certificate is verified for the host name of the URL."""

    call: Call
    allowed: tuple[str, ...]

    def _new_conn(self) -> socket.socket:
        return self.call.connect(self.host, self.port or 443, self.allowed)


def open_connection(
    call: Call, scheme: str, host: str, port: int | None, allowed: tuple[str, ...]
) -> HTTPConnection:
    """A connection to ``host`` that connects at its first request."""
    options: dict[str, Any] = {"timeout": call.remaining() + 1.0}
    connection: _Plain | _Tls
    if scheme == "https":
        connection = _Tls(host, port or 443, ssl_context=tls_context(), **options)
    else:
        connection = _Plain(host, port or 80, **options)
    connection.call = call
    connection.allowed = allowed
    return connection


def described(error: Exception) -> str:
    """What went wrong, in words that hold nothing of the request."""
    if isinstance(error, socket.gaierror):
        return "the host name can't be resolved"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the TLS certificate is not valid ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or type(error).__name__})"
    if isinstance(error, TimeoutError):
        return "it timed out"
    if isinstance(error, DecodeError):
        return "the answer can't be decompressed"
    if isinstance(error, OSError) and not isinstance(error, HTTPError):
        return error.strerror or str(error) or type(error).__name__
    return f"the connection broke or the answer is no HTTP ({type(error).__name__})"
