"""A database and real processes for each test, with short leases; see benchmarks/server.py."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from benchmarks import checks
from benchmarks.server import KEY, Bench, Plan, Server, queue
from benchmarks.workflows import Nodes, definition
from tests.processes import PATIENCE, Process

LEASE = 3.0  # seconds: short, but a busy machine does not lose it
NO_END = "3600"  # seconds: for an executor whose leases are not to end


class Answer(NamedTuple):
    """What the API said."""

    status: int
    headers: http.client.HTTPMessage
    body: Any


def post(bench: Bench, path: str) -> Answer:
    """POST ``{}`` to a path below /v1/metronomes/."""
    client = http.client.HTTPConnection(bench.settings.host, bench.settings.port, timeout=PATIENCE)
    try:
        client.request(
            "POST",
            f"/v1/metronomes/{path}",
            "{}",
            {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
        )
        answer = client.getresponse()
        return Answer(answer.status, answer.headers, orjson.loads(answer.read()))
    finally:
        client.close()


class Crew:
    """What the tests do with a bench."""

    def __init__(self, bench: Bench, marks: Path) -> None:
        self.bench = bench
        self.marks = marks
        self._gate = marks.with_name("gate")

    def plan(self, *nodes: tuple[str, dict[str, Any]]) -> Plan:
        """A workflow that is a chain: a trigger, these nodes (n1, n2, ...), an end."""
        chain: Nodes = [("t", "trigger", {})]
        chain += [(f"n{place}", kind, config) for place, (kind, config) in enumerate(nodes, 1)]
        return Plan(self.bench, "test", definition([*chain, ("end", "end", {})]))

    def function(self, name: str, **payload: Any) -> tuple[str, dict[str, Any]]:
        """A function node that leaves marks."""
        marked = {"path": str(self.marks), **payload}
        return "function", {"functionName": name, "payload": marked}

    def gated(self) -> tuple[str, dict[str, Any]]:
        """A function node that leaves marks, and is in flight until ``open_gate``."""
        return self.function("gated", gate=str(self._gate))

    def unsafe(self) -> tuple[str, dict[str, Any]]:
        """The same, of a function that is unsafe to replay."""
        return self.function("unsafe", gate=str(self._gate))

    def open_gate(self) -> None:
        """Let the gated nodes end, those in flight and those to come."""
        self._gate.touch()

    def holder(self, run_id: str) -> Process:
        """The executor that holds the run."""
        _, pid, _ = self.run(run_id)["locked_by"].split(":")
        (found,) = (one for one in self.bench.processes if one.pid == int(pid))
        return found

    def queue(self, plan: Plan) -> str:
        """Queue a run; its id."""
        return queue(self.bench.connection, plan, 1)[0]

    def run(self, run_id: str) -> dict[str, Any]:
        """The run's row, as JSON."""
        row: dict[str, Any] = orjson.loads(
            self.bench.sql("SELECT row_to_json(r)::text FROM runs r WHERE id = %s", run_id)[0][0]
        )
        return row

    def trace(self, run_id: str) -> list[dict[str, Any]]:
        """The rows of its steps."""
        rows = self.bench.sql(
            "SELECT row_to_json(s)::text FROM steps s WHERE run_id = %s ORDER BY seq", run_id
        )
        return [orjson.loads(row[0]) for row in rows]

    def in_flight(self, run_id: str, node: str) -> bool:
        """Whether the node has started and not ended."""
        return any(
            step["node_id"] == node and step["status"] == "running" for step in self.trace(run_id)
        )

    def marked(self, node: str) -> bool:
        """Whether the node's function has left a mark."""
        return any(mark.node == node for mark in checks.marks(self.marks))

    def listens(self) -> bool:
        """Whether an executor hears every notification from now on."""
        return bool(
            self.bench.sql(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND"
                " application_name LIKE 'metronome listener%%' AND state = 'idle'"
                " AND query LIKE 'LISTEN%%'"
            )
        )

    def ended(self, run_id: str, status: str = "completed") -> bool:
        """Whether the run has this status, and nobody holds it."""
        run = self.run(run_id)
        return run["status"] == status and run["lease_token"] is None


@pytest.fixture
def make_crew(tmp_path: Path) -> Callable[[Bench], Crew]:
    """A crew on a bench of the test's own."""
    return lambda bench: Crew(bench, tmp_path / "marks")


@pytest.fixture
def crew(server_url: str, tmp_path: Path, make_crew: Callable[[Bench], Crew]) -> Iterator[Crew]:
    """A crew on a new database of the session's server."""
    changes = {"lease_seconds": LEASE, "poll_seconds": 0.2, "grace_seconds": 60.0, "web_workers": 1}
    with Server(server_url, tmp_path, None).bench(**changes) as bench:
        yield make_crew(bench)
