"""Functions for function nodes that leave their mark, take their time, or fail as told.

Put this directory on an executor's PYTHONPATH: the ``probes-1.0.dist-info`` in it registers them.
"""

from __future__ import annotations

import os
import time
from typing import Any

GATE_SECONDS = 100.0  # a gate that stays shut is an error of the test


def touch_file(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """Append a line to the file ``path``: time in ns, step id, node id, attempt."""
    _mark(payload["path"], context)
    return {}


def nothing(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """Do nothing."""
    return {}


def text(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer a text of ``length`` characters."""
    return {"text": "x" * payload["length"]}


def slow(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """Wait ``seconds``, but give up at once where the run is stopped; marks ``path`` first."""
    if "path" in payload:
        _mark(payload["path"], context)
    context.wait(payload["seconds"])
    context.raise_if_stopped()
    return {}


def deaf(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """Wait ``seconds``, whatever becomes of the run; marks ``path`` first."""
    if "path" in payload:
        _mark(payload["path"], context)
    time.sleep(payload["seconds"])
    return {"slept": payload["seconds"]}


def gated(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """Wait until the file ``gate`` exists, whatever becomes of the run; marks ``path`` first."""
    if "path" in payload:
        _mark(payload["path"], context)
    deadline = time.monotonic() + GATE_SECONDS
    while not os.path.exists(payload["gate"]):
        if time.monotonic() > deadline:
            raise RuntimeError("the gate was not opened")
        time.sleep(0.01)
    return {}


def unsafe(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """Like ``gated``, or like ``deaf`` where there is no gate; a replay of it is not safe."""
    return gated(payload, context) if "gate" in payload else deaf(payload, context)


def fatal(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """Mark ``path``, and end the whole process in every attempt up to the number ``until``."""
    _mark(payload["path"], context)
    if context.attempt <= payload["until"]:
        os._exit(70)
    return {}


def fail_until(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """Fail in every attempt before the one numbered ``attempt``."""
    if context.attempt < payload["attempt"]:
        raise RuntimeError(f"attempt {context.attempt} is to fail")
    return {"attempt": context.attempt}


def sums(payload: dict[str, Any]) -> int:
    """Add up ``numbers``; says that it only computes."""
    return sum(payload["numbers"])


def nothing_pure(payload: dict[str, Any]) -> dict[str, Any]:
    """Do nothing, and say so."""
    return {}


def claims_to_compute(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """Like ``gated``, and says that it only computes, which is not true."""
    return gated(payload, context)


def _mark(path: str, context: Any) -> None:
    line = f"{time.time_ns()} {context.step_id} {context.node_id} {context.attempt}\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())  # one write: the lines of several processes don't mix
    finally:
        os.close(file)


for _function in (nothing, text, touch_file, slow, deaf, gated, fatal, fail_until):
    _function.metronome_replay_safe = True  # type: ignore[attr-defined]
nothing_pure.metronome_pure = True  # type: ignore[attr-defined]
sums.metronome_pure = True  # type: ignore[attr-defined]
claims_to_compute.metronome_pure = True  # type: ignore[attr-defined]
