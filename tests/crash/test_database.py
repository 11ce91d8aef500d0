"""PostgreSQL that goes away under load, and comes back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import checks
from benchmarks.server import Bench, Plan, server
from tests.crash.conftest import Crew, post
from tests.processes import PATIENCE

Wait = Callable[..., Any]


class Client(threading.Thread):
    """Asks for runs again and again, and remembers those that were acknowledged."""

    def __init__(self, bench: Bench, plan: Plan) -> None:
        super().__init__(daemon=True)
        self._bench = bench
        self._path = f"{plan.metronome_id}/runs"
        self._ended = threading.Event()
        self.acknowledged: list[str] = []
        self.refused: list[int] = []

    def run(self) -> None:
        """Ask until ``end``; an API without a database may answer 5xx, but it must answer."""
        while not self._ended.wait(0.02):
            answer = post(self._bench, self._path)
            if answer.status == 201:
                self.acknowledged.append(answer.body["data"]["id"])
            else:
                self.refused.append(answer.status)

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()
        self.join(PATIENCE)
        assert not self.is_alive(), "the API did not answer"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_no_acknowledged_run_is_lost_while_postgresql_comes_back(
    make_crew: Callable[[Bench], Crew], wait_for: Wait, how: signal.Signals
) -> None:
    changes = {"lease_seconds": 3.0, "poll_seconds": 0.2, "web_workers": 1}
    with server(own=True) as postgres, postgres.bench(**changes) as bench:
        crew = make_crew(bench)
        functions = [crew.function("deaf", seconds=0.01) for _ in range(10)]
        plan = crew.plan(*functions, *(("note", {}) for _ in range(10)))
        bench.start_api()
        for _ in range(2):
            bench.start_executor()
        client = Client(bench, plan)
        client.start()
        wait_for(lambda: len(client.acknowledged) > 10 or not client.is_alive())
        assert postgres.embedded is not None

        os.kill(postgres.embedded.pid or 0, how)
        wait_for(lambda: postgres.embedded.pid is None)
        wait_for(lambda: client.refused or not client.is_alive())
        postgres.embedded.stop()
        postgres.embedded.start()

        bench.reconnect()
        before = len(client.acknowledged)
        wait_for(lambda: len(client.acknowledged) > before + 10 or not client.is_alive())
        client.end()
        assert all(500 <= status < 600 for status in client.refused)
        assert [one.logs()[-2000:] for one in bench.processes if one.returncode is not None] == []
        bench.wait_until_idle()
        assert bench.sql("SELECT error FROM runs WHERE error IS NOT NULL") == []
        statuses = dict(bench.sql("SELECT id, status FROM runs"))
        assert {statuses.get(run_id) for run_id in client.acknowledged} == {"completed"}
        found = checks.traces(bench) + checks.side_effects(bench, crew.marks)
        assert [one for one in found if one.count] == []
