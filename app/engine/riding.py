"""Nodes that only compute, and need no boundary of their own.

Such a node is run ahead of the next boundary, which writes its step as one that has begun and ended
at that moment, if the run is still running then. If it is not, it is as if the node had not run:
nobody can tell, since it has no effect. So a chain of them costs one commit, and still nothing
starts after a cancel was answered, and no step that is in the trace runs twice.
"""

from __future__ import annotations

from app.domain.graph import Node
from app.domain.jsonvalue import dumps
from app.domain.outcomes import Done
from app.engine.frames import Frame
from app.engine.holds import Hold
from app.engine.walk import Walk
from app.nodes.base import Context, NodeKind


def may_ride(kind: NodeKind, frame: Frame, node: Node, hold: Hold) -> bool:
    """Whether nothing hangs on the moment at which the node starts."""
    return (
        kind.pure
        and not hold.stop.is_set()
        and node.id not in frame.replays
        and "timeoutMs" not in node.config
    )


def ride(
    walk: Walk, frame: Frame, node: Node, kind: NodeKind, context: Context, recorded: str | None
) -> bool:
    """Run the node; False where it does not end well, and is to take the usual way, which says so.

    ``recorded`` is its input as JSON text.
    """
    try:
        outcome = kind.run(context)
        if not isinstance(outcome, Done):
            return False
        limit = context.limits.output_max_bytes
        text = dumps(outcome.output, "output", max_bytes=limit) if outcome.output else "{}"
    except Exception:
        return False
    walk.ride(frame, node, recorded, text, outcome.branch)
    return True
