"""Steps a second of one worker process, and of the bare statement."""

from __future__ import annotations

import signal

from benchmarks import steps
from benchmarks.peers.peer import Peer
from benchmarks.peers.work import KINDS
from benchmarks.server import Plan, Server
from tests.processes import wait_for

STEPS = KINDS["chain"].steps


def rate(peer: Peer, profile: str, workflows: int) -> float:
    """Steps a second (of a job queue: jobs), from the worker's waking to the last end.

    The worker is warm, but stopped by a signal while all is queued: how fast a peer queues is not
    what is measured, and none can begin before all of it is there.
    """
    count = workflows * (1 if peer.durable else STEPS)
    with peer.world() as world:
        worker = world.start(profile)
        world.warm_up("chain", 16)
        before = world.call("finished").value
        worker.signal(signal.SIGSTOP)
        queued = world.enqueue("chain", [f"n{number}" for number in range(count)])
        worker.signal(signal.SIGCONT)
        ended = world.wait()
        wait_for(  # a queue may note its last ends a moment after it is empty
            lambda: world.call("finished").value - before >= workflows * STEPS,
            message=lambda: f"{world.call('finished').value - before} steps are recorded",
        )
    return workflows * STEPS / (ended.ended - queued.ended)


def limit(server: Server, threads: int, workflows: int) -> float:
    """Steps a second of bare psycopg2 that sends Metronome's boundary statement, one a commit."""
    with server.bench() as bench:
        return steps.raw(bench, Plan(bench, "limit", steps.chain()), threads, workflows)[0]
