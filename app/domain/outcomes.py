"""What a node's handler answers: outcome as data, which the interpreter persists.

A handler returns one of these and never raises on purpose: an exception that escapes it is
recorded as a retryable ``Failed``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Done:
    """The node has finished.

    ``output`` is a JSON object. ``branch`` names the ``sourceHandle`` whose edges are taken; None
    takes every edge but those of the ``error`` handle.
    """

    output: dict[str, Any] = field(default_factory=dict)
    branch: str | None = None


@dataclass(frozen=True, slots=True)
class SleepUntil:
    """The node is to be woken at ``until`` (database time, aware, UTC), when it is done.

    It holds no thread where that is far off. ``output`` is what the step's output will be then;
    ``waitedMs`` is added by the interpreter.
    """

    until: datetime
    output: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """The node has failed. ``retryable`` False means that trying again can't help."""

    error: str
    retryable: bool = True
    output: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The node saw the stop signal and gave up; its side effect may or may not have happened."""

    detail: str
    output: dict[str, Any] | None = None


Outcome = Done | SleepUntil | Failed | Interrupted
