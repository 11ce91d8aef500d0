"""A client that queues runs and cancels each at a random moment, and remembers what it was told."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import orjson

from app.db import RawConnection
from benchmarks.server import KEY, Bench, Plan, queue


@dataclass(frozen=True, slots=True)
class Answer:
    """What a cancel was answered, and what the database held right behind the answer."""

    status: str  # of the run
    outcome: str  # Cancel-Outcome
    in_flight: frozenset[str]  # Cancel-In-Flight
    at: int  # ns since 1970, when the answer had arrived
    seconds: float  # that it took


@dataclass(slots=True)
class Cancelled:
    """One run: how it stood right before, the answers, and the steps right behind the first one."""

    run_id: str
    plan: str
    before: str  # queued, running, sleeping, terminal
    answers: list[Answer] = field(default_factory=list)
    started: frozenset[int] = frozenset()  # seqs of the steps that had started
    in_flight: frozenset[str] = frozenset()  # nodes of the steps that were still under a lease


_BEFORE = """
SELECT CASE WHEN status IN ('completed', 'failed', 'cancelled') THEN 'terminal'
    WHEN status = 'running' AND lease_token IS NULL THEN 'sleeping' ELSE status END
FROM runs WHERE id = %s
"""
_SNAPSHOT = """
SELECT seq, CASE WHEN lease_token IS NOT NULL THEN node_id END FROM steps
WHERE run_id = %s AND started_at IS NOT NULL
"""


class Canceller(threading.Thread):
    """Queues ``count`` runs, some at a time, and cancels them all; one run in ``twice`` twice."""

    def __init__(self, bench: Bench, plans: Sequence[Plan], count: int, *, twice: int = 5) -> None:
        super().__init__(daemon=True)
        self._bench = bench
        self._plans = plans
        self._count = count
        self._twice = twice
        self._local = threading.local()
        self.done: list[Cancelled] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        """Queue and cancel until the count is reached."""
        connection = self._bench.db.raw(application_name="benchmark")
        try:
            with ThreadPoolExecutor(1) as second:
                while len(self.done) < self._count:
                    self._round(connection, second)
        except BaseException as error:
            self.error = error
        finally:
            connection.close()

    def _round(self, connection: RawConnection, second: ThreadPoolExecutor) -> None:
        """A handful of runs at once: more than can be walked, so that some are still queued."""
        size = min(random.randint(1, 12), self._count - len(self.done))
        begin, jobs = time.monotonic(), []
        for _ in range(size):
            plan = random.choice(self._plans)
            (run_id,) = queue(connection, plan, 1)
            jobs.append((begin + random.choice((0.03, 0.1, 0.3)) * random.random(), run_id, plan))
        for moment, run_id, plan in sorted(jobs, key=lambda job: job[0]):
            time.sleep(max(0.0, moment - time.monotonic()))
            self.done.append(self._cancel(connection, second, run_id, plan))

    def _cancel(
        self, connection: RawConnection, second: ThreadPoolExecutor, run_id: str, plan: Plan
    ) -> Cancelled:
        path = f"/v1/metronomes/{plan.metronome_id}/runs/{run_id}/cancel"
        with connection.cursor() as cursor:
            cursor.execute(_BEFORE, (run_id,))
            (before,) = cursor.fetchone() or ("gone",)
            other = None
            if random.randrange(self._twice) == 0:
                other = second.submit(self._send, path)
            one = Cancelled(run_id, plan.name, before, [self._send(path)])
            cursor.execute(_SNAPSHOT, (run_id,))
            rows = cursor.fetchall()
        one.started = frozenset(seq for seq, _ in rows)
        one.in_flight = frozenset(node for _, node in rows if node is not None)
        if other is not None:
            one.answers.append(other.result())
        return one

    def _send(self, path: str) -> Answer:
        """POST on this thread's connection, opened again where the server has closed it."""
        begin = time.perf_counter()
        for fresh in (False, True):
            client = getattr(self._local, "client", None)
            if client is None or fresh:
                host, port = self._bench.settings.host, self._bench.settings.port
                client = self._local.client = http.client.HTTPConnection(host, port, timeout=30)
            try:
                client.request("POST", path, headers={"Authorization": f"Bearer {KEY}"})
                answer = client.getresponse()
                body = answer.read()
                break
            except (http.client.RemoteDisconnected, ConnectionError):
                if fresh:
                    raise
        at = time.time_ns()
        if answer.status != 200:
            raise AssertionError(f"{answer.status}: {body!r}")
        run: dict[str, Any] = orjson.loads(body)["data"]
        named = answer.headers.get("Cancel-In-Flight")
        return Answer(
            run["status"],
            answer.headers.get("Cancel-Outcome", ""),
            frozenset(unquote(node) for node in named.split(",")) if named else frozenset(),
            at,
            time.perf_counter() - begin,
        )
