"""A small connector: does the work of nodes in threads, and stops when their run is cancelled.

    pip install standardwebhooks
    CONNECTOR_SECRET=whsec_... python connector.py 9000

Its "work" is to wait for ``config.seconds`` and to answer with ``config.message``. Work without
seconds is answered at once, with 200; other work with 202, and the end is called back. A node whose
config has ``fail`` fails with that text. Put your own work into ``do_work``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook

BEAT_SECONDS = 0.5
CALL_SECONDS = 10
MAX_BODY = 10_000_000  # bytes

webhook = Webhook(os.environ["CONNECTOR_SECRET"])


class Cancelled(Exception):
    """Nobody wants the work any more."""


class Job:
    """The work of one step, while it goes on."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.cancelled = threading.Event()
        self.go_on = threading.Event()  # cleared while the run is paused
        self.go_on.set()

    def run(self) -> None:
        """Do the work, and call back how it ended."""
        try:
            say("started", self.order)
            output = do_work(self.order["config"], self)
            self.call("complete", {"output": output})
            say("completed", self.order)
        except Cancelled:
            say("stopped", self.order)
        except Exception as error:
            self.call("fail", {"error": str(error), "retryable": False})
            say("failed", self.order)
        finally:
            jobs.pop(self.order["stepId"], None)

    def check(self, seconds: float) -> None:
        """Wait; raises Cancelled as soon as nobody wants the work any more."""
        if self.cancelled.wait(seconds):
            raise Cancelled
        self.go_on.wait()
        beat = self.call("heartbeat", {})
        if beat is None or beat["data"]["status"] != "running":
            raise Cancelled

    def call(self, verb: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Call back, again and again until the API is there; None where it refuses."""
        callback = self.order["callback"]
        request = urllib.request.Request(
            f"{callback['url']}/{verb}",
            data=json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {callback['token']}",
                "Content-Type": "application/json",
            },
        )
        while not self.cancelled.is_set():
            try:
                with urllib.request.urlopen(request, timeout=CALL_SECONDS) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    return None
            except OSError:
                pass
            time.sleep(BEAT_SECONDS)
        return None


jobs: dict[str, Job] = {}  # by step id
lock = threading.Lock()


def do_work(config: dict[str, Any], job: Job | None) -> dict[str, Any]:
    """The work itself; it looks at ``job`` now and then, where it takes long."""
    until = time.monotonic() + float(config.get("seconds") or 0)
    while job is not None and (left := until - time.monotonic()) > 0:
        job.check(min(left, BEAT_SECONDS))
    if config.get("fail"):
        raise RuntimeError(config["fail"])
    return {"text": config.get("message")}


class Handler(BaseHTTPRequestHandler):
    """One request; requests that are not signed with our secret are refused."""

    def do_POST(self) -> None:
        """Take an order, or news of one."""
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), MAX_BODY))
        try:
            event = webhook.verify(body, dict(self.headers))
        except Exception:  # the library raises more than its own error on what is malformed
            return self.answer(401, {"error": "the signature is not valid"})
        if event["type"] == "node.dispatched":
            return self.take(event)
        job = jobs.get(event["stepId"])  # None: it has ended, or never came here
        if job is not None and event["type"] == "node.cancelled":
            job.cancelled.set()
            job.go_on.set()
        elif job is not None and event["type"] == "node.paused":
            job.go_on.clear()
        elif job is not None and event["type"] == "node.resumed":
            job.go_on.set()
        say(event["type"], event)
        return self.answer(200, {})

    def take(self, order: dict[str, Any]) -> None:
        """Answer at once, or begin to work; an order that comes again is no second one."""
        config = order["config"]
        if not config.get("seconds"):
            try:
                return self.answer(200, do_work(config, None))
            except Exception as error:
                return self.answer(422, {"error": str(error)})
        with lock:
            if order["stepId"] not in jobs:
                job = jobs[order["stepId"]] = Job(order)
                threading.Thread(target=job.run, daemon=True).start()
        return self.answer(202, {"job": order["stepId"]})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        """Send an answer."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: ``say`` tells what matters."""


def say(what: str, event: dict[str, Any]) -> None:
    """One line on standard output."""
    line = f"{what} {event['runId']} {event['stepId']} {event['nodeId']}\n"
    print(line, end="", flush=True)  # one write, so that the lines of several threads don't mix


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print("listening", server.server_port, flush=True)
    server.serve_forever()
