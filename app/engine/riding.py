"""Nodes that only compute, and need no boundary of their own.

Such a node (``NodeKind.is_pure``) is run ahead of the next boundary, which writes its step as one
that began and ended at that moment, if the run is still running then. If it is not, it is as if the
node had not run: nobody can tell, since it has no effect. So a chain of them costs one commit, and
still nothing starts after a cancel was answered, and no step that is in the trace runs twice.

Only on a straight way, so that what else there is to tell waits for nothing: no step has ended
that did more than compute, nothing is parked or passed over, no loop goes on. Not after a take-over
either: what ends its executor must have been seen to start. And what is not quick takes the usual
way after all, so that the trace tells how long it took.
"""

from __future__ import annotations

import time

import orjson

from app.domain.graph import Node
from app.domain.jsonvalue import dumps
from app.domain.lifecycle import COMPLETED
from app.domain.outcomes import Done
from app.engine.course import Course
from app.nodes.base import Context, NodeKind
from app.store.leases import Claimed

QUICK_SECONDS = 0.005  # of the processor
WAIT_SECONDS = 0.5  # by the clock: many threads that compute let each other wait for a while
KEPT = 10_000  # nodes that are known to be slow


class Slow:
    """The nodes that have turned out to be slow, in this process."""

    def __init__(self) -> None:
        self._nodes: set[tuple[str, int, str]] = set()

    def has(self, claimed: Claimed, node: Node) -> bool:
        """Whether the node, of that revision, was slow before."""
        nodes = self._nodes
        return bool(nodes) and _key(claimed, node) in nodes

    def add(self, claimed: Claimed, node: Node) -> None:
        """Remember one; all are forgotten when they are too many."""
        if len(self._nodes) >= KEPT:
            self._nodes = set()
        self._nodes.add(_key(claimed, node))


def _key(claimed: Claimed, node: Node) -> tuple[str, int, str]:
    return claimed.version_id, claimed.version_revision, node.id


def may_ride(course: Course, slow: Slow, node: Node) -> bool:
    """Whether nothing hangs on the moment at which ``node``, which is pure, starts."""
    walk, hold = course.walk, course.hold
    return (
        not course.claimed.takeovers
        and not hold.stop.is_set()
        and not slow.has(course.claimed, node)
        and walk.is_straight()
        and walk.pending.is_only(walk.rides.behind)
        and not walk.rides.is_full()
    )


def ride(
    course: Course,
    slow: Slow,
    kind: NodeKind,
    node: Node,
    context: Context,
    recorded: str | None,
) -> bool:
    """Run the node; False where it is to be run again in the usual way.

    That is where it does not end well, or not soon. ``recorded`` is its input as JSON text.
    """
    walk = course.walk
    begun, since = time.thread_time(), time.monotonic()
    try:
        outcome = kind.run(context)
        if not isinstance(outcome, Done):
            return False
        limit = context.limits.output_max_bytes
        text = dumps(outcome.output, "output", max_bytes=limit) if outcome.output else "{}"
    except Exception:  # the usual way says what it was
        return False
    if time.thread_time() - begun > QUICK_SECONDS or time.monotonic() - since > WAIT_SECONDS:
        slow.add(course.claimed, node)
        return False
    step = walk.start(
        walk.top, node, recorded, branch=outcome.branch, status=COMPLETED, output=text
    )
    if walk.rides.before is None:
        # only their names, since there may be a thousand: hardly ever does anybody ask for more
        walk.rides.begin(walk.top.progress.ready(), step.seq)
    walk.rides.add(step)
    walk.started(walk.top, step)
    walk.top.settle(node, orjson.loads(text), outcome.branch)
    return True
