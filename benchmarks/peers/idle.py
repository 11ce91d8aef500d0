"""What workers cost that have nothing to do: all peers at once, each in a database of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import usage
from benchmarks.peers.peer import Peer, World
from tests import servers
from tests.processes import Process

FLUSHED = 12.0  # seconds until PostgreSQL has counted what came before


def rest(
    peers: Sequence[Peer], url: str, seconds: float, *, failed: Callable[[Peer, Exception], None]
) -> Mapping[str, dict[str, Any]]:
    """CPU, transactions and memory of an idle worker with default settings, over ``seconds``."""
    servers.execute(url, "ALTER SYSTEM SET autovacuum = off")  # its transactions would be counted
    servers.execute(url, "SELECT pg_reload_conf()")
    with contextlib.ExitStack() as stack:
        idle: dict[str, tuple[World, Process]] = {}
        for peer in peers:
            try:
                world = stack.enter_context(peer.world())
                worker = world.start("default")
                world.warm_up()
                world.hang_up()
                idle[peer.name] = (world, worker)
            except Exception as error:
                failed(peer, error)
        time.sleep(min(FLUSHED, seconds))
        before = {name: _counted(url, *one) for name, one in idle.items()}
        begin = time.monotonic()
        time.sleep(seconds)
        minutes = (time.monotonic() - begin) / 60
        after = {name: _counted(url, *one) for name, one in idle.items()}
        found = {
            name: {
                "cpu_percent": 100 * (after[name][0] - before[name][0]) / (60 * minutes),
                "transactions_a_minute": (after[name][1] - before[name][1]) / minutes,
                "rss_mb": usage.rss_mb(idle[name][1].pid),
            }
            for name in idle
        }
    servers.execute(url, "ALTER SYSTEM RESET autovacuum")
    servers.execute(url, "SELECT pg_reload_conf()")
    return found


def _counted(url: str, world: World, worker: Process) -> tuple[float, int]:
    return usage.cpu_seconds(worker.pid), usage.transactions(url, world.database)
