"""A proxy in front of PostgreSQL that counts what is sent, and can lose the connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from sqlalchemy.engine import make_url


class Wire:
    """Listens on 127.0.0.1 and passes everything on to the server of ``database_url``.

    ``queries`` holds the text of every query message, each of which is one round trip. ``away``
    refuses new connections. ``lose_answer_to`` is a piece of a query: after the next query that
    holds it, the connection is closed instead of answered, though the server has run the query;
    ``lost`` counts those.
    """

    def __init__(self, database_url: str) -> None:
        url = make_url(database_url)
        host = str(url.query.get("host", url.host or "127.0.0.1"))
        port = int(str(url.query.get("port", url.port or 5432)))
        self._server = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.queries: list[str] = []
        self.away = False
        self.lose_answer_to: str | None = None
        self.lost = 0
        own = self._listener.getsockname()[1]
        self.url = (
            f"postgresql://{url.username}@127.0.0.1:{own}/{url.database}"
            "?sslmode=disable&gssencmode=disable"
        )
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close all connections, as a restart of the server does."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening and close everything."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.away:
                    client.close()
                    continue
                local = isinstance(self._server, str)
                server = socket.socket(socket.AF_UNIX if local else socket.AF_INET)
                server.connect(self._server)
                self._open |= {client, server}
                _Pair(self, client, server)


class _Pair:
    def __init__(self, wire: Wire, client: socket.socket, server: socket.socket) -> None:
        self._wire = wire
        self._client, self._server = client, server
        self._lose = False
        for work in (self._up, self._down):
            threading.Thread(target=self._until_closed, args=(work,), daemon=True).start()

    def _until_closed(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, EOFError):
            work()
        for one in (self._client, self._server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _up(self) -> None:
        size = self._read(4)
        self._server.sendall(size + self._read(int.from_bytes(size, "big") - 4))  # the greeting
        while True:
            head = self._read(5)
            body = self._read(int.from_bytes(head[1:], "big") - 4)
            if head[:1] == b"Q":
                query = body.rstrip(b"\0").decode()
                self._wire.queries.append(query)
                losing = self._wire.lose_answer_to
                if losing is not None and losing in query:
                    self._wire.lose_answer_to, self._lose = None, True
            self._server.sendall(head + body)

    def _down(self) -> None:
        while data := self._server.recv(65536):
            if self._lose:
                self._wire.lost += 1
                return
            self._client.sendall(data)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._client.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data
