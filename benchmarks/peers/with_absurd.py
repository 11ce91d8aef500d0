"""Absurd: durable workflows in SQL functions, with a small SDK. https://github.com/earendil-works/absurd

A worker polls, and claims as many tasks as it has places for. A task is taken over once its claim
has expired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import absurdctl
import psycopg
from absurd_sdk import Absurd, AsyncAbsurd

from benchmarks.peers import side
from benchmarks.peers.work import KINDS, step, step_async

QUEUE = "bench"


def prepare(url: str) -> None:
    """The schema that its command installs by psql, and a queue."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
    app = Absurd(url, queue_name=QUEUE)
    app.create_queue(QUEUE)
    app.close()


def _in_threads(name: str) -> Callable[[Any, Any], None]:
    kind = KINDS[name]

    def task(parameters: Any, context: Any) -> None:
        for number in range(kind.steps):
            context.step(f"step-{number}", lambda at=number: _run(parameters, at, kind.seconds))

    return task


def _run(parameters: Any, number: int, seconds: float | None) -> None:
    if seconds is not None:
        step(parameters["tag"], number, seconds)


def _on_a_loop(name: str) -> Callable[[Any, Any], Coroutine[Any, Any, None]]:
    kind = KINDS[name]

    async def task(parameters: Any, context: Any) -> None:
        for number in range(kind.steps):

            async def run(at: int = number) -> None:
                if kind.seconds is not None:
                    await step_async(parameters["tag"], at, kind.seconds)

            await context.step(f"step-{number}", run)

    return task


def work(url: str, settings: side.Settings, instance: str) -> None:
    """A worker: tasks in threads, or on an event loop."""
    options = {name: value for name, value in settings.items() if name != "api"}
    if settings["api"] == "Absurd":
        app = Absurd(url, queue_name=QUEUE)
        for name in KINDS:
            app.register_task(name=name)(_in_threads(name))
        app.start_worker(worker_id=instance, **options)
        return

    async def main() -> None:
        app = AsyncAbsurd(url, queue_name=QUEUE)
        for name in KINDS:
            app.register_task(name=name)(_on_a_loop(name))
        await app.start_worker(worker_id=instance, **options)

    asyncio.run(main())


class Client:
    """The SDK on a connection of our own, so that many tasks are one transaction."""

    def __init__(self, url: str) -> None:
        self._sql = psycopg.connect(url, autocommit=True)
        self._app = Absurd(self._sql, queue_name=QUEUE)

    def enqueue(self, kind: str, tags: Sequence[str]) -> list[str]:
        """Spawn each."""
        if len(tags) == 1:
            return [self._spawn(kind, tags[0])]
        with self._sql.transaction():
            return [self._spawn(kind, tag) for tag in tags]

    def _spawn(self, kind: str, tag: str) -> str:
        return str(self._app.spawn(kind, {"tag": tag}, queue=QUEUE)["task_id"])

    def cancel(self, workflow: str) -> None:
        """cancel_task."""
        self._app.cancel_task(workflow)

    def left(self) -> bool:
        """Whether one is pending, running or sleeping."""
        found = self._sql.execute(
            f"SELECT 1 FROM absurd.t_{QUEUE}"
            " WHERE state IN ('pending', 'running', 'sleeping') LIMIT 1"
        )
        return found.fetchone() is not None

    def finished(self) -> int:
        """All checkpoints."""
        found = self._sql.execute(f"SELECT count(*) FROM absurd.c_{QUEUE}").fetchone()
        return int(found[0])

    def recorded(self, workflow: str) -> list[int]:
        """The steps that have a checkpoint."""
        found = self._sql.execute(
            f"SELECT checkpoint_name FROM absurd.c_{QUEUE} WHERE task_id = %s", [workflow]
        )
        return [int(row[0].removeprefix("step-")) for row in found.fetchall()]


PEER = side.Peer(
    package="absurd-sdk",
    title="Absurd",
    durable=True,
    settings={
        "default": {"api": "Absurd", "concurrency": 8},
        "eight": {"api": "AsyncAbsurd", "concurrency": 8},
        "best": {"api": "AsyncAbsurd", "concurrency": 64},
        "alone": {"api": "Absurd", "concurrency": 1, "poll_interval": 0.01},
    },
    prepare=prepare,
    work=work,
    client=Client,
)

if __name__ == "__main__":
    side.main(PEER)
