"""Nodes that wait without a thread: how they are parked, and what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from app.domain.errors import ValueRefused
from app.domain.graph import Node
from app.domain.jsonvalue import clean_text, dumps
from app.domain.lifecycle import CANCELLED, RUNNING, WAITING_APPROVAL
from app.domain.outcomes import (
    AwaitApproval,
    AwaitCallback,
    Done,
    Failed,
    Outcome,
    Repeat,
    SleepUntil,
    Spawn,
)
from app.domain.progress import body_entries
from app.engine.course import Course, of
from app.engine.frames import Frame, Parked, deadline
from app.nodes.base import Context, News

log = logging.getLogger(__name__)

MAX_ERROR = 10_000  # characters of an error in the trace
_NO_END = (CANCELLED, "deleted")  # how a nested run may have ended that came to nothing
_WAITS_FOR = {SleepUntil: "time", AwaitApproval: "approval", AwaitCallback: "callback"}


def park(
    course: Course,
    frame: Frame,
    node: Node,
    context: Context,
    seq: int,
    outcome: Outcome,
) -> Failed | None:
    """Park the node where its outcome asks for that; the failure where it can't be."""
    if isinstance(outcome, Repeat):
        return _repeat(course, frame, node, context, seq, outcome)
    if isinstance(outcome, Spawn):
        return _spawn(course, frame, node, context, seq, outcome)
    if isinstance(outcome, (SleepUntil, AwaitApproval, AwaitCallback)):
        try:
            dumps(outcome.output, "output", max_bytes=course.limits.output_max_bytes)
        except ValueRefused as error:
            return Failed(error.message, retryable=False)
        status = WAITING_APPROVAL if isinstance(outcome, AwaitApproval) else RUNNING
        parked = Parked(
            seq,
            context.started_at,
            outcome.until,
            outcome.output,
            status=status,
            deadline=deadline(node, context.started_at),
            metadata={"waitsFor": _WAITS_FOR[type(outcome)]},
        )
        course.walk.park(frame, node, parked)
    return None


def _repeat(
    course: Course, frame: Frame, node: Node, context: Context, seq: int, outcome: Repeat
) -> Failed | None:
    body = course.walk.graph.body(node.id)
    if not body_entries(body):
        return Failed("the loop has no node inside of it to begin at", retryable=False)
    course.walk.open_loop(frame, node, seq, outcome.plan, context.started_at)
    return None


def _spawn(
    course: Course, frame: Frame, node: Node, context: Context, seq: int, outcome: Spawn
) -> Failed | None:
    made = course.prepare_nested(outcome, seq)
    if isinstance(made, Failed):
        return made
    metadata = {
        "waitsFor": "nested_run",
        "childRunId": made.run_id,
        "childMetronomeId": made.metronome_id,
    }
    parked = Parked(
        seq,
        context.started_at,
        None,
        {},
        deadline=deadline(node, context.started_at),
        metadata=metadata,
    )
    course.walk.park(frame, node, parked, made)
    return None


def resume(
    course: Course,
    node: Node,
    context: Context,
    parked: Parked,
    now: datetime,
) -> Outcome:
    """What has become of a parked node that has news, or whose time has come."""
    if parked.result is not None:
        course.walk.dispatched.discard(parked.seq)  # the remote side knows how it has ended
        course.walk.heard.add(parked.seq)
    elif parked.timed_out(now):
        course.cancel_nested([parked.seq])
        return Failed(f"timed out after {node.config.get('timeoutMs')} ms")
    waited = max(0, round((now - parked.started_at).total_seconds() * 1000))
    try:
        news = News(parked.result, parked.output, waited)
        return course.kinds[node.kind].resume(context, news)
    except Exception as error:  # whatever a handler raises fails its own node only
        log.exception("a node raised", extra=of(course.hold, node, context.step_id))
        return Failed(f"{type(error).__name__}: {error}")


def settle(
    course: Course, context_of: Callable[[Frame, Node, Parked], Context], top: Frame
) -> None:
    """End what has news in a frame that is about to be closed; nothing comes of it any more."""
    waiting = [
        (frame, frame.graph.nodes[node_id], parked)
        for frame in top.below()
        for node_id, parked in frame.parked.items()
        if parked.result is not None and parked.result.get("status") not in _NO_END
    ]
    for frame, node, parked in waiting:
        context = context_of(frame, node, parked)
        outcome = resume(course, node, context, parked, course.clock.now())
        if not isinstance(outcome, (Done, Failed)):
            continue
        try:
            limit = course.limits.output_max_bytes
            text = dumps(outcome.output or {}, "output", max_bytes=limit)
        except ValueRefused as error:
            outcome, text = Failed(error.message, retryable=False), "{}"
        if isinstance(outcome, Done):
            course.walk.done(frame, node, parked.seq, text, outcome.branch)
        else:
            error_text = clean_text(outcome.error, MAX_ERROR)
            course.walk.failed_within(frame, node, parked.seq, error_text, text)
