"""What a node's handler answers: outcome as data, which the interpreter persists.

A handler returns one of these and never raises on purpose: an exception that escapes it is
recorded as a retryable ``Failed``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """How often a loop goes round.

    ``items`` holds the items that each iteration gets, where it goes through a list. ``count`` is
    the number of iterations, or None where ``until`` decides alone. ``until`` is an expression that
    is looked at after each iteration: the loop ends where it holds. ``most`` bounds every loop.
    """

    count: int | None
    items: tuple[list[Any], ...] | None
    until: str | None
    most: int


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
class AwaitApproval:
    """Somebody is to decide; ``until`` is when that is too late (database time), or None.

    The run holds no thread. ``output`` is what the step shows meanwhile.
    """

    until: datetime | None
    output: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AwaitCallback:
    """A remote side works on and will call back; ``until`` is when that is too late, or None."""

    until: datetime | None
    output: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spawn:
    """Another workflow is to run, named by its id or else by its name; the node waits for it."""

    workflow_id: str | None
    workflow_name: str | None
    input: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The nodes inside of this one are to run again and again, by the plan of a loop."""

    plan: LoopPlan


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


Outcome = Done | SleepUntil | AwaitApproval | AwaitCallback | Spawn | Repeat | Failed | Interrupted
