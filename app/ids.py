"""Identifiers: a prefix that tells the kind, and a UUIDv7 so that they sort by time of creation."""

from __future__ import annotations

import os
import time


def uuid7_hex() -> str:
    """A UUIDv7 (RFC 9562) as 32 hex digits: milliseconds since 1970, then 74 random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version 7
    value = value & ~(0x3 << 62) | 0x2 << 62  # the RFC's variant
    return f"{value:032x}"


def new_id(prefix: str) -> str:
    """A new identifier such as ``run_0198c0de...``; ``prefix`` comes without the underscore."""
    return f"{prefix}_{uuid7_hex()}"


def step_id(run_id: str, seq: int) -> str:
    """The id of the ``seq``-th step of a run; it sorts behind the steps before it."""
    return f"step_{run_id.removeprefix('run_')}_{seq:06d}"
