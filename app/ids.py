"""Identifiers: a prefix that tells the kind, and a UUIDv7 so that they sort by time of creation."""

from __future__ import annotations

import os
import re
import time
from datetime import datetime

_STEP = re.compile(r"step_([A-Za-z0-9]+)_([0-9]{6,9})")


def uuid7_hex() -> str:
    """A UUIDv7 (RFC 9562) as 32 hex digits: ms since 1970, 4096ths of one, 62 random bits.

    With the fractions (the RFC's method 3), what one process makes one after the other sorts so.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    value = milliseconds << 80 | int.from_bytes(os.urandom(8), "big")
    value |= 0x7 << 76 | nanoseconds * 4096 // 1_000_000 << 64  # version 7
    value = value & ~(0x3 << 62) | 0x2 << 62  # the RFC's variant
    return f"{value:032x}"


def new_id(prefix: str, *, after: str | None = None) -> str:
    """A new identifier such as ``run_0198c0de...``; ``prefix`` comes without the underscore.

    It sorts behind ``after``, whatever this host's clock says.
    """
    made = f"{prefix}_{uuid7_hex()}"
    if after is None or made > after:
        return made
    head = int(after.removeprefix(f"{prefix}_")[:12], 16) + 1  # a millisecond later
    return f"{prefix}_{head:012x}{made[-20:]}"


def step_id(run_id: str, seq: int) -> str:
    """The id of the ``seq``-th step of a run; it sorts behind the steps before it."""
    return f"step_{run_id.removeprefix('run_')}_{seq:06d}"


def first_id(prefix: str, moment: datetime) -> str:
    """What sorts before every identifier that is made at ``moment`` or later."""
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return f"{prefix}_{milliseconds:012x}"


def step_of(step_id: str) -> tuple[str, int] | None:
    """The run and the seq of a step's id; None for what is none."""
    found = _STEP.fullmatch(step_id)
    return (f"run_{found[1]}", int(found[2])) if found else None
