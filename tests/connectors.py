"""Remote sides for tests: the example of the documentation as a real process, and receivers that
answer as they are told."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks.webhooks import Webhook

from app.domain.connectors import Connector
from tests.processes import ROOT, Process, free_port, wait_for

SECRET = "whsec_" + base64.b64encode(b"a secret of at least 24 bytes").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"another one of at least 24 bytes").decode()


def connector(url: str, name: str = "action", **changes: Any) -> Connector:
    """A connector with the tests' secret."""
    return Connector(**{"name": name, "url": url, "secret": SECRET, **changes})


class Example:
    """The program of docs/examples/connector.py."""

    def __init__(self, directory: Path, secret: str = SECRET) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._process = Process(
            [str(ROOT / "docs/examples/connector.py"), self.url.rpartition(":")[2]],
            directory / "connector.log",
            {**os.environ, "CONNECTOR_SECRET": secret},
        )
        wait_for(lambda: self.said("listening"), message="the example connector's start")

    def said(self, what: str, about: str = "") -> bool:
        """Whether it has said that of a run, a step or a node."""
        lines = [line.split() for line in self._process.logs().splitlines()]
        return any(line[:1] == [what] and (not about or about in line) for line in lines)

    def logs(self) -> str:
        """All that it has said."""
        return self._process.logs()

    def stop(self) -> None:
        """End it."""
        self._process.kill9()


class Receiver:
    """Keeps what it is sent, verified; ``answer`` makes the status and body of each answer."""

    def __init__(self, secret: str = SECRET) -> None:
        self.events: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[dict[str, Any]], tuple[int, bytes]] = lambda event: (200, b"{}")
        receiver, webhook = self, Webhook(secret)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                try:
                    event = webhook.verify(body, headers)
                except Exception:
                    event = {"type": "forged", "body": json.loads(body)}
                receiver.headers.append(headers)
                receiver.events.append(event)
                status, content = receiver.answer(event)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # cut off
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def of(self, type: str) -> list[dict[str, Any]]:
        """The events of a type, in the order in which they came."""
        return [event for event in self.events if event["type"] == type]

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
