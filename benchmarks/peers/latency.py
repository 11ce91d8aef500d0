"""How soon an idle worker starts what is queued."""

from __future__ import annotations

import random
import time

from benchmarks.peers.peer import Peer


def starts(peer: Peer, count: int) -> list[float]:
    """Milliseconds from the answer to the enqueue to the first line of the step, each."""
    taken = []
    with peer.world() as world:
        world.start("default")
        world.warm_up()
        for number in range(count):
            time.sleep(random.uniform(0.05, 0.35))  # at any phase of who polls
            tag = f"n{number}"
            queued = world.enqueue("one", [tag])
            taken.append(1000 * (world.wait_for_mark("start", tag).at - queued.ended))
    return taken
