"""Steps a second of one worker process."""

from __future__ import annotations

from benchmarks.peers.peer import Peer, World
from benchmarks.peers.work import KINDS

STEPS = KINDS["chain"].steps


def rate(peer: Peer, profile: str, workflows: int) -> float:
    """Steps a second (of a job queue: jobs), from the commit that queues all to the last end."""
    with peer.world() as world:
        world.start(profile)
        world.warm_up("chain", 16)
        return _rate(world, workflows)


def _rate(world: World, workflows: int) -> float:
    steps = workflows * STEPS
    before = world.call("finished").value
    count = workflows if world.peer.durable else steps
    queued = world.enqueue("chain", [f"n{number}" for number in range(count)])
    ended = world.wait()
    for _ in range(100):  # a queue may note the ends a moment later than it empties
        done = world.call("finished").value - before
        if done >= steps:
            break
    assert done == steps, f"{done} of {steps} steps are recorded"
    return steps / (ended.ended - queued.ended)
