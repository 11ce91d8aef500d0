"""A flaky connector: a process that does nodes' work badly, and writes down what it saw.

    CONNECTOR_SECRET=whsec_... python -m benchmarks.connector PORT LOG

What it is sent says how it is to be taken: ``config.manners`` has an entry for each attempt (the
last one for all further ones), and ``config.seconds`` is how long the work takes. Its log has one
JSON object a line: what was dispatched, called back and told. Any other POST, such as those of http
nodes, is answered with 200 most of the time. After POST /calm it takes every message.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook

HANGS = 2.5  # seconds: longer than anybody waits
SLOW = 0.6  # seconds until work is accepted
CALL_SECONDS = 20.0
CALM = "/calm"
PAGE = "/page"
_AT_ONCE = {"done": 200, "500": 500, "422": 422, "refuses": 403}
_BEAT = 0.2


class Log:
    """The file; each line is one write."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, what: str, about: dict[str, Any], **more: Any) -> None:
        """Note something about a step, with the time in ns since 1970."""
        line = {"at": time.time_ns(), "what": what, "step": about["stepId"], **more}
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Job:
    """Work on one step that goes on after it was accepted."""

    def __init__(self, log: Log, order: dict[str, Any]) -> None:
        self._log = log
        self._order = order
        self._seconds = float(order["config"].get("seconds", 0))
        self.cancelled = threading.Event()

    def work(self, manner: str) -> None:
        """Take the time, then call back; most stop when they are cancelled, the stubborn don't."""
        until = time.monotonic() + self._seconds
        while (left := until - time.monotonic()) > 0:
            if self.cancelled.wait(min(left, _BEAT)) and manner != "stubborn":
                return
            if manner == "beats":
                self.call("heartbeat", {})
        if manner == "silent" or (self.cancelled.is_set() and manner != "stubborn"):
            return
        for _ in range(2 if manner == "twice" else 1):
            if manner == "gives up":
                self.call("fail", {"error": "it gave up", "retryable": True})
            else:
                self.call("complete", {"output": {"manner": manner}})

    def call(self, verb: str, body: dict[str, Any]) -> None:
        """Call back until there is an answer that is not 503."""
        callback = self._order["callback"]
        request = urllib.request.Request(
            f"{callback['url']}/{verb}",
            data=json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {callback['token']}",
                "Content-Type": "application/json",
            },
        )
        until = time.monotonic() + CALL_SECONDS
        while time.monotonic() < until:
            status, outcome = self._answer(request)
            self._log.write("called", self._order, verb=verb, status=status, outcome=outcome)
            if status not in (None, 503):
                return
            time.sleep(_BEAT)

    def _answer(self, request: urllib.request.Request) -> tuple[int | None, str | None]:
        try:
            with urllib.request.urlopen(request, timeout=CALL_SECONDS) as answer:
                return answer.status, answer.headers.get("Callback-Outcome")
        except urllib.error.HTTPError as error:
            error.close()
            return error.code, None
        except OSError:
            return None, None


class Connector:
    """What the requests of one process share."""

    def __init__(self, log: Log, secret: str) -> None:
        self.log = log
        self.webhook = Webhook(secret)
        self.jobs: dict[str, Job] = {}  # by step id
        self.calm = threading.Event()

    def manner(self, order: dict[str, Any]) -> str:
        """How the order is to be taken."""
        manners = order["config"].get("manners") or ["done"]
        return str(manners[min(order["attempt"], len(manners)) - 1])

    def begin(self, order: dict[str, Any], manner: str) -> None:
        """Work in a thread; an order that comes again is no second one."""
        job = Job(self.log, order)
        if self.jobs.setdefault(order["stepId"], job) is job:
            threading.Thread(target=job.work, args=(manner,), daemon=True).start()

    def tell(self, event: dict[str, Any]) -> int | None:
        """Take a message; the status to answer, None to hang up."""
        status: int | None = 200
        if not self.calm.is_set() and random.random() < 0.2:
            status = random.choice((500, 503, None))
        self.log.write("told", event, event=event["type"], answered=status)
        job = self.jobs.get(event["stepId"])
        if job is not None and event["type"] == "node.cancelled":
            job.cancelled.set()
        return status


def handler(connector: Connector) -> type[BaseHTTPRequestHandler]:
    """The handler of requests to ``connector``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._page()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == CALM:
                connector.calm.set()
                return self._answer(200, b"{}")
            if self.path == PAGE:
                return self._page()
            try:
                event = connector.webhook.verify(body, dict(self.headers))
            except Exception:  # the library raises more than its own error on what is malformed
                connector.log.write("forged", {"stepId": None}, path=self.path)
                return self._answer(401, b"{}")
            if event["type"] == "node.dispatched":
                return self._take(event)
            status = connector.tell(event)
            return self._hang_up() if status is None else self._answer(status, b"{}")

        def _page(self) -> None:
            time.sleep(random.choice((0.0, 0.05, 0.3)))
            self._answer(200 if random.random() < 0.8 else 503, b'{"ok": true}')

        def _take(self, order: dict[str, Any]) -> None:
            manner = connector.manner(order)
            connector.log.write("dispatched", order, manner=manner, id=self.headers["webhook-id"])
            if manner in _AT_ONCE:
                return self._answer(_AT_ONCE[manner], b'{"message": "as it was to be"}')
            if manner == "garbage":
                return self._answer(200, b"no JSON")
            if manner in ("hangs", "drops"):
                time.sleep(HANGS if manner == "hangs" else 0.05)
                return self._hang_up()
            if manner == "early":  # called back before it is accepted
                Job(connector.log, order).call("complete", {"output": {"manner": manner}})
            else:
                time.sleep(SLOW if manner == "slow" else 0)
                connector.begin(order, manner)
            return self._answer(202, b'{"job": 1}')

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _hang_up(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # whoever asked is gone, or did not want to wait
                super().handle()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the log tells what matters."""

    return Handler


class Server(ThreadingHTTPServer):
    """A thread for each request, and room for all that executors send at once."""

    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    """Serve until the process is ended."""
    port, path = int(sys.argv[1]), sys.argv[2]
    connector = Connector(Log(path), os.environ["CONNECTOR_SECRET"])
    Server(("127.0.0.1", port), handler(connector)).serve_forever()


if __name__ == "__main__":
    main()
