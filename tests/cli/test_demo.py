from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.cli.client import connect
from tests.cli.conftest import Command, command_line
from tests.processes import PATIENCE, Live


@pytest.fixture
def ready(live: Live, monkeypatch: pytest.MonkeyPatch) -> Live:
    """A server with an executor."""
    monkeypatch.setenv("METRONOME_BOOTSTRAP_KEY", live.api_key)
    live.start_executor()
    live.wait_until_ready()
    return live


def the_run(live: Live) -> dict[str, Any]:
    """The only run of the only workflow, which the demo has archived, and its steps."""
    api = connect(live.base_url, None)
    (workflow,) = api.get("metronomes", includeArchived="true").data
    (run,) = api.get("metronomes", workflow["id"], "runs").data
    steps = api.get("metronomes", workflow["id"], "runs", run["id"], "steps").data
    return {**run, "workflowStatus": workflow["status"], "steps": steps}


def at_the_cancel(run: dict[str, Any]) -> list[str]:
    """The nodes that had started and not ended when the run was cancelled."""
    cancelled = run["completedAt"]
    return [
        step["nodeId"]
        for step in run["steps"]
        if step["startedAt"] and step["startedAt"] < cancelled <= step["completedAt"]
    ]


def test_the_demo_cancels_midway_and_shows_that_nothing_followed(
    ready: Live, metronome: Command
) -> None:
    done = metronome("demo", "--cancel-after", "0.8")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "An order goes through 17 nodes; the run is cancelled after 0.8 s."
    assert any(line.startswith("Cancel      answered 200 in ") for line in lines)
    assert any(line.startswith("After it    0 steps started ") for line in lines)
    assert sum("-- cancel --" in line for line in lines) == 1
    assert sum("\u2500\u2500 cancel " in line for line in lines) == 1
    assert "\x1b" not in done.stdout
    run = the_run(ready)
    assert (run["status"], run["workflowStatus"]) == ("cancelled", "archived")
    (told,) = (line for line in lines if line.startswith("In flight   "))
    (node,) = at_the_cancel(run)  # check_stock, review or what a slow machine has come to
    assert told.startswith(f"In flight   {node} (cancelled ")


def test_the_demo_can_run_to_its_end_and_answer_in_json(ready: Live, metronome: Command) -> None:
    done = metronome("demo", "--no-cancel", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(done.stdout)["data"]
    assert (data["run"]["status"], data["cancel"], data["startedAfter"]) == ("completed", None, [])
    assert {step["status"] for step in data["steps"]} == {"completed", "skipped"}
    assert len(data["steps"]) == 17


def test_ctrl_c_cancels_the_run(ready: Live) -> None:
    line = command_line(ready, "demo", "--cancel-after", "60", PYTHONUNBUFFERED="1")
    with subprocess.Popen(**line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            assert process.stdout is not None
            assert any("check_stock" in shown for shown in process.stdout)
            process.send_signal(signal.SIGINT)
            told = process.stdout.read()
            assert process.wait(PATIENCE) == 130, told
        finally:
            process.kill()
    assert "After it    0 steps started" in told
    run = the_run(ready)
    assert (run["status"], run["workflowStatus"]) == ("cancelled", "archived")


def test_without_an_executor_the_demo_says_so_and_leaves_nothing(
    live: Live, metronome: Command
) -> None:
    done = metronome("demo")
    assert (done.returncode, done.stdout) == (1, "")
    assert "has no executor" in done.stderr
    assert "metronome executor" in done.stderr
    assert json.loads(metronome("metronomes", "list", "--archived", "--json").stdout)["data"] == []


# -- a server that lies

STARTED, CANCELLED, LATE = (f"2030-01-31T12:00:0{second}.000000Z" for second in (1, 2, 3))


class Liar(BaseHTTPRequestHandler):
    """Answers a cancel with 200, and starts one more node all the same."""

    cancelled = False

    def _answer(self, data: Any) -> None:
        body = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cancel-Outcome", "cancelled")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer([step(STARTED), step(LATE)] if self.path.endswith("/steps") else run())

    def do_POST(self) -> None:
        Liar.cancelled |= self.path.endswith("/cancel")
        self._answer(run())

    def do_DELETE(self) -> None:
        self._answer({})

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""


def run() -> dict[str, Any]:
    status = "cancelled" if Liar.cancelled else "running"
    ended = CANCELLED if Liar.cancelled else None
    times = {"createdAt": STARTED, "startedAt": STARTED, "completedAt": ended}
    return {"id": "run_1", "status": status, "lockedBy": None, "error": None, **times}


def step(started: str) -> dict[str, Any]:
    rest = {"nodeType": "delay", "attempt": 1, "durationMs": 1, "error": None, "output": None}
    times = {"startedAt": started, "completedAt": started, "createdAt": started}
    return {"id": started, "nodeId": "charge", "status": "completed", **rest, **times}


@pytest.fixture
def liar_url() -> Iterator[str]:
    """The URL of a server that breaks the promise."""
    Liar.cancelled = False
    with ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_start_after_the_cancel_is_a_loud_failure(
    liar_url: str, metronome: Callable[..., Any]
) -> None:
    done = metronome("demo", "--cancel-after", "0", METRONOME_URL=liar_url)
    assert done.returncode == 1
    assert "PROMISE BROKEN: steps started after the cancel: charge at 12:00:03.000" in done.stderr
    assert "After it    1 step started" in done.stdout
