"""DBOS: durable workflows in a library. https://docs.dbos.dev/python

A queue is polled; without a limit all that is queued starts at once. Another executor takes over
only where the vendor's Conductor tells it to; an executor that is restarted under its own id
recovers what it had.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import psycopg
import sqlalchemy
from dbos import DBOS, DBOSClient

from benchmarks.peers import side
from benchmarks.peers.work import KINDS, step

QUEUE = "bench"


def _register(url: str, instance: str, pool: int | None = None) -> None:
    config = {
        "name": "bench",
        "system_database_url": url,
        "executor_id": instance,
        "application_version": "1",
        "log_level": "ERROR",
    }
    DBOS(config={**config, **({"sys_db_pool_size": pool} if pool else {})})
    nothing = DBOS.step(name="nothing")(_nothing)
    marked = DBOS.step(name="marked")(step)

    def chain(tag: str) -> None:
        for _ in range(KINDS["chain"].steps):
            nothing()

    DBOS.workflow(name="chain")(chain)
    for name, kind in KINDS.items():
        if kind.seconds is None:
            continue

        def workflow(tag: str, steps: int = kind.steps, seconds: float = kind.seconds) -> None:
            for number in range(steps):
                marked(tag, number, seconds)

        workflow.__qualname__ = name
        DBOS.workflow(name=name)(workflow)


def _nothing() -> None:
    pass


def prepare(url: str) -> None:
    """Its migrations."""
    _register(url, "prepare")
    DBOS.launch()
    DBOS.destroy()


def work(url: str, settings: side.Settings, instance: str) -> None:
    """An executor that polls the queue."""
    _register(url, instance, settings.get("sys_db_pool_size"))
    DBOS.launch()
    limits = {
        name: value
        for name, value in settings.items()
        if name in ("worker_concurrency", "polling_interval_sec")
    }
    DBOS.register_queue(QUEUE, on_conflict="always_update", **limits)
    threading.Event().wait()


class Client:
    """DBOSClient."""

    def __init__(self, url: str) -> None:
        self._client = DBOSClient(system_database_url=url)
        self._engine = sqlalchemy.create_engine(
            url.replace("postgresql://", "postgresql+psycopg://", 1)
        )
        self._sql = psycopg.connect(url, autocommit=True)

    def enqueue(self, kind: str, tags: Sequence[str]) -> list[str]:
        """All in one transaction; one alone as the documentation shows it."""
        options = {"workflow_name": kind, "queue_name": QUEUE}
        if len(tags) == 1:
            return [self._client.enqueue(options, tags[0]).get_workflow_id()]
        with self._engine.begin() as connection:
            return [
                self._client.enqueue_in_transaction(connection, options, tag).get_workflow_id()
                for tag in tags
            ]

    def cancel(self, workflow: str) -> None:
        """cancel_workflow."""
        self._client.cancel_workflow(workflow)

    def left(self) -> bool:
        """Whether one is queued or pending."""
        found = self._sql.execute(
            "SELECT 1 FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING') LIMIT 1"
        )
        return found.fetchone() is not None

    def finished(self) -> int:
        """All outputs of steps."""
        found = self._sql.execute("SELECT count(*) FROM dbos.operation_outputs").fetchone()
        return int(found[0])

    def recorded(self, workflow: str) -> list[int]:
        """The steps that have an output."""
        found = self._sql.execute(
            "SELECT function_id FROM dbos.operation_outputs WHERE workflow_uuid = %s", [workflow]
        )
        return [row[0] - 1 for row in found.fetchall()]


PEER = side.Peer(
    package="dbos",
    title="DBOS",
    durable=True,
    settings={
        "default": {"worker_concurrency": 8},
        "eight": {"worker_concurrency": 8, "polling_interval_sec": 0.02},
        "best": {"worker_concurrency": 8, "polling_interval_sec": 0.02},  # more is slower
        "alone": {"worker_concurrency": 1, "polling_interval_sec": 0.01},
    },
    prepare=prepare,
    work=work,
    client=Client,
)

if __name__ == "__main__":
    side.main(PEER)
