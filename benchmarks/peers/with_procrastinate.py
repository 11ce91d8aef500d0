"""Procrastinate: a job queue for asyncio. https://procrastinate.readthedocs.io

A job is one step here, but for the long one, which is a loop inside of a job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

from benchmarks.peers import side
from benchmarks.peers.work import KINDS, step_async


def _register(app: Any) -> dict[str, Any]:
    tasks = {}
    for name, kind in KINDS.items():
        run = _nothing if kind.seconds is None else _marked(kind.steps, kind.seconds)
        tasks[name] = app.task(name=name)(run)
    return tasks


async def _nothing(tag: str) -> None:
    pass


def _marked(steps: int, seconds: float) -> Any:
    async def run(tag: str) -> None:
        for number in range(steps):
            await step_async(tag, number, seconds)

    return run


def prepare(url: str) -> None:
    """Its schema."""
    with App(connector=SyncPsycopgConnector(conninfo=url)).open() as app:
        app.schema_manager.apply_schema()


def work(url: str, settings: side.Settings, instance: str) -> None:
    """A worker."""
    size = settings["pool"]
    app = App(connector=PsycopgConnector(conninfo=url, min_size=min(4, size), max_size=size))
    _register(app)
    options = {name: value for name, value in settings.items() if name != "pool"}
    app.run_worker(name=instance, **options)


class Client:
    """The app on a synchronous connector."""

    def __init__(self, url: str) -> None:
        self._app = App(connector=SyncPsycopgConnector(conninfo=url))
        self._app.open()
        self._tasks = _register(self._app)
        self._sql = psycopg.connect(url, autocommit=True)

    def enqueue(self, kind: str, tags: Sequence[str]) -> list[str]:
        """All in one statement."""
        ids = self._tasks[kind].batch_defer(*({"tag": tag} for tag in tags))
        return [str(one) for one in ids]

    def cancel(self, workflow: str) -> None:
        """cancel_job_by_id, with abort: what runs is interrupted where it awaits."""
        self._app.job_manager.cancel_job_by_id(int(workflow), abort=True)

    def left(self) -> bool:
        """Whether a job is to be done or being done."""
        found = self._sql.execute(
            "SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing') LIMIT 1"
        )
        return found.fetchone() is not None

    def finished(self) -> int:
        """The jobs that have succeeded."""
        found = self._sql.execute(
            "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
        ).fetchone()
        return int(found[0])

    def recorded(self, workflow: str) -> None:
        """It knows no steps."""


PEER = side.Peer(
    package="procrastinate",
    title="Procrastinate",
    durable=False,
    settings={
        "default": {"concurrency": 8, "pool": 10},
        "eight": {"concurrency": 8, "pool": 10},
        "best": {"concurrency": 16, "pool": 18},
        "alone": {"concurrency": 1, "pool": 4},
    },
    prepare=prepare,
    work=work,
    client=Client,
)

if __name__ == "__main__":
    side.main(PEER)
