"""Oban, the Python port: a job queue for asyncio. https://oban.pro/docs/py

A job is one step here, but for the long one, which is a loop inside of a job that asks between its
steps whether it is cancelled, as the documentation has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import uvloop
from oban import Cancel, Oban, worker
from oban.schema import install

from benchmarks.peers import side
from benchmarks.peers.work import KINDS, step_async

QUEUE = "default"


def _register() -> dict[str, Any]:
    made = {}
    for name, kind in KINDS.items():
        run = _nothing if kind.seconds is None else _marked(kind.steps, kind.seconds)
        made[name] = worker(queue=QUEUE)(type(name.title(), (), {"process": run}))
    return made


async def _nothing(self: Any, job: Any) -> None:
    pass


def _marked(steps: int, seconds: float) -> Any:
    async def process(self: Any, job: Any) -> Any:
        for number in range(steps):
            if job.cancelled():
                return Cancel("cancelled")
            await step_async(job.args["tag"], number, seconds)
        return None

    return process


def prepare(url: str) -> None:
    """Its schema."""

    async def installed() -> None:
        pool = await Oban.create_pool(url)
        await install(pool)
        await pool.close()

    asyncio.run(installed())


def work(url: str, settings: side.Settings, instance: str) -> None:
    """A node with one queue."""

    async def main() -> None:
        _register()
        pool = await Oban.create_pool(url, min_size=2, max_size=10)
        async with Oban(pool=pool, node=instance, queues={QUEUE: dict(settings)}):
            await asyncio.Event().wait()

    uvloop.run(main())


class Client:
    """An Oban without queues."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._workers = _register()
        self._sql = psycopg.connect(url, autocommit=True)
        self._oban = self._loop.run(self._start(url))

    async def _start(self, url: str) -> Any:
        return await Oban(pool=await Oban.create_pool(url, min_size=1, max_size=4)).start()

    def enqueue(self, kind: str, tags: Sequence[str]) -> list[str]:
        """All in one statement."""
        jobs = [self._workers[kind].new({"tag": tag}) for tag in tags]
        return [str(job.id) for job in self._loop.run(self._oban.enqueue_many(jobs))]

    def cancel(self, workflow: str) -> None:
        """cancel_job."""
        self._loop.run(self._oban.cancel_job(int(workflow)))

    def left(self) -> bool:
        """Whether a job is available or executing."""
        found = self._sql.execute(
            "SELECT 1 FROM oban_jobs WHERE state IN ('available', 'executing') LIMIT 1"
        )
        return found.fetchone() is not None

    def finished(self) -> int:
        """The jobs that are completed."""
        found = self._sql.execute(
            "SELECT count(*) FROM oban_jobs WHERE state = 'completed'"
        ).fetchone()
        return int(found[0])

    def recorded(self, workflow: str) -> None:
        """It knows no steps."""


PEER = side.Peer(
    package="oban",
    title="Oban",
    durable=False,
    settings={
        "default": {"limit": 8},
        "eight": {"limit": 8},
        "best": {"limit": 400},
        "alone": {"limit": 1},
    },
    prepare=prepare,
    work=work,
    client=Client,
)

if __name__ == "__main__":
    side.main(PEER)
