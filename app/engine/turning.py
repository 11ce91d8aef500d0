"""Loops: the next iteration, the end of a loop, and what fails with a node inside of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from app.domain.errors import ExpressionError, ValueRefused
from app.domain.expressions import compile_expression
from app.domain.graph import FIXTURE, Graph, Node
from app.domain.jsonvalue import dumps
from app.domain.outcomes import Failed
from app.domain.progress import has_error_edge
from app.engine.course import Course
from app.engine.frames import Frame, Loop, answer

# What is done where a node has failed: see Interpreter.failed.
Failing = Callable[[Course, Frame, Node, int, Failed], bool]

_FRAME_BYTES = 1_000  # of a loop's output, beside the outputs of its iterations


def turn_loops(course: Course, failed: Failing) -> bool:
    """Begin the iterations that are due and end the loops that are over.

    False where that ended the run.
    """
    walk = course.walk
    if not walk.top.loops:  # as in nearly all runs, at every step
        return True
    while (loop := walk.late_loop(course.clock.now())) is not None:
        error = f"timed out after {loop.node.config.get('timeoutMs')} ms"
        if not fail_loop(course, loop, failed, Failed(error)):
            return False
    while (loop := walk.turning()) is not None:
        try:
            stopped_by = _stopped_by(loop)
        except ExpressionError as refusal:
            failure = Failed(f"rule: {refusal.message}", retryable=False)
            if not fail_loop(course, loop, failed, failure):
                return False
            continue
        if stopped_by is None:
            walk.turn(loop)
        elif not _end(course, loop, stopped_by):
            return False
    return True


def _stopped_by(loop: Loop) -> str | None:
    """What ends the loop now; None where it goes round once more."""
    done = loop.iteration + 1
    plan = loop.plan
    rule = None if loop.frame is None or plan.until is None else compile_expression(plan.until)
    if loop.frame is not None and rule is not None and rule.evaluate(loop.frame.scope):
        return "rule"
    if plan.count is not None and done >= plan.count:
        return "count"
    return "maxIterations" if done >= plan.most else None


def _end(course: Course, loop: Loop, stopped_by: str) -> bool:
    walk, limit = course.walk, course.limits.output_max_bytes
    walk.leave(loop)
    if loop.frame is not None and not course.flush():  # its outputs are read from the trace
        return False
    told: dict[str, Any] = {"iterations": loop.iteration + 1, "stoppedBy": stopped_by}
    try:
        text = dumps(told | _outputs(course, loop, limit), "output", max_bytes=limit)
    except ValueRefused:  # one iteration's answer is too big, or too deep inside of the others
        told |= {"outputs": [], "last": None, "truncated": True}
        text = dumps(told, "output", max_bytes=_FRAME_BYTES)
    walk.done(loop.outer, loop.node, loop.seq, text, None)
    return True


def _outputs(course: Course, loop: Loop, limit: int) -> dict[str, Any]:
    """What the iterations answered, as far as it fits. Raises ValueRefused."""
    if loop.frame is None:
        return {"outputs": [], "last": None}
    last = loop.frame.result()
    room = limit - _FRAME_BYTES - len(dumps(last, "output", max_bytes=limit).encode())
    body, iterations = loop.frame.graph, loop.iteration + 1
    rows = course.iteration_outputs(loop, last_nodes(body), room)
    outputs = by_iteration(rows, body, iterations, room)
    whole = len(outputs) == iterations
    return {"outputs": outputs, "last": last} | ({} if whole else {"truncated": True})


def fail_loop(course: Course, loop: Loop, failed: Failing, failure: Failed) -> bool:
    """A loop has failed, and what waits inside of it ends; False where that ended the run."""
    if loop.frame is not None:
        course.end_waits(loop.frame)
        course.walk.close(loop.frame, "the loop around this node failed")
    return failed(course, loop.outer, loop.node, loop.seq, failure)


def way_on(frame: Frame) -> Loop | None:
    """The nearest loop around ``frame`` that can go on when it fails, or None."""
    loop = frame.loop
    while loop is not None and not _can_go_on(loop):
        loop = loop.outer.loop
    return loop


def _can_go_on(loop: Loop) -> bool:
    retry = loop.node.config.get("retry") or {}
    return (retry.get("maxAttempts") or 1) > 1 or has_error_edge(loop.outer.graph, loop.node.id)


def last_nodes(body: Graph) -> list[str]:
    """The nodes whose outputs an iteration may answer."""
    return [
        node.id
        for node in body.nodes.values()
        if node.kind == "end" or not (body.outgoing[node.id] or node.kind == FIXTURE)
    ]


def by_iteration(
    rows: Sequence[tuple[int, str, str]], body: Graph, iterations: int, room: int
) -> list[dict[str, Any]]:
    """What each iteration answered: the first ones, as far as they fit into ``room`` bytes.

    ``rows`` are (iteration, node id, JSON text), in order. One in which no last node was reached
    has answered nothing.
    """
    found: list[dict[str, Any]] = []
    place = 0
    for iteration in range(iterations):
        outputs: dict[str, Any] = {}
        room -= len("{},")
        while place < len(rows) and rows[place][0] == iteration:
            _, node, text = rows[place]
            room -= len(text.encode()) + len(node.encode()) + len('"":,')
            outputs[node] = orjson.loads(text)
            place += 1
        if room < 0:
            break
        ends = {id: out for id, out in outputs.items() if body.nodes[id].kind == "end"}
        found.append(answer(ends or outputs))
    return found
