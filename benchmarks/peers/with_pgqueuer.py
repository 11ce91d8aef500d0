"""PgQueuer: a job queue that claims and acknowledges in batches. https://pgqueuer.readthedocs.io

A job is one step here, but for the long one, which is a loop inside of a job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import psycopg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Context, Job
from pgqueuer.queries import Queries

from benchmarks.peers import side
from benchmarks.peers.work import KINDS, step_async


def prepare(url: str) -> None:
    """Its tables, durable as they come, with the autovacuum that its checklist asks for."""

    async def install() -> None:
        connection = await asyncpg.connect(url)
        queries = Queries(AsyncpgDriver(connection))
        await queries.install()
        await queries.optimize_autovacuum()
        await connection.close()

    asyncio.run(install())


def work(url: str, settings: side.Settings, instance: str) -> None:
    """A worker on a connection of its own, as the guide to its performance wants it."""
    uvloop.run(_work(url, settings))


async def _work(url: str, settings: side.Settings) -> None:
    app = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))
    for name, kind in KINDS.items():
        if kind.seconds is None:
            app.entrypoint(name)(_nothing)
        else:
            app.entrypoint(name, accepts_context=True)(_marked(kind.steps, kind.seconds))
    await app.run(**settings)


async def _nothing(job: Job) -> None:
    pass


def _marked(steps: int, seconds: float) -> Any:
    async def run(job: Job, context: Context) -> None:
        with context.cancellation:  # ends what is awaited in it
            for number in range(steps):
                await step_async(job.payload.decode(), number, seconds)

    return run


class Client:
    """Queries."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        connection = self._loop.run(asyncpg.connect(url))
        self._queries = Queries(AsyncpgDriver(connection))
        self._sql = psycopg.connect(url, autocommit=True)

    def enqueue(self, kind: str, tags: Sequence[str]) -> list[str]:
        """All in one statement."""
        ids = self._loop.run(
            self._queries.enqueue(
                [kind] * len(tags), [tag.encode() for tag in tags], [0] * len(tags)
            )
        )
        return [str(one) for one in ids]

    def cancel(self, workflow: str) -> None:
        """mark_job_as_cancelled."""
        self._loop.run(self._queries.mark_job_as_cancelled([int(workflow)]))

    def left(self) -> bool:
        """Whether the queue has a row."""
        return self._sql.execute("SELECT 1 FROM pgqueuer LIMIT 1").fetchone() is not None

    def finished(self) -> int:
        """The jobs that are logged as successful."""
        found = self._sql.execute(
            "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'"
        ).fetchone()
        return int(found[0])

    def recorded(self, workflow: str) -> None:
        """It knows no steps."""


PEER = side.Peer(
    package="pgqueuer",
    title="PgQueuer",
    durable=False,
    settings={
        "default": {"batch_size": 4, "max_concurrent_tasks": 8},
        "eight": {"batch_size": 4, "max_concurrent_tasks": 8},
        "best": {"batch_size": 100},
        "alone": {"batch_size": 1, "max_concurrent_tasks": 2},
    },
    prepare=prepare,
    work=work,
    client=Client,
)

if __name__ == "__main__":
    side.main(PEER)
