"""What every peer is made to do, and the marks that its steps leave in a file.

Only the standard library: this is imported by every peer's worker. The clock is the machine's
monotonic one, the same in all processes.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass

JOURNAL = "PEERS_JOURNAL"  # names the variable that names the file


@dataclass(frozen=True, slots=True)
class Kind:
    """A workflow of ``steps`` steps; each of them takes ``seconds``, and None leaves no mark."""

    steps: int
    seconds: float | None


KINDS = {
    "chain": Kind(10, None),  # steps that do nothing
    "one": Kind(1, 0.0),
    "nap": Kind(1, 0.05),
    "long": Kind(60, 0.02),  # to be cancelled
    "crash": Kind(10, 0.3),  # to be interrupted by a kill
}

_files: dict[str, int] = {}


def mark(event: str, tag: str, number: int) -> None:
    """Append a line: time, process, event, which workflow, which step."""
    path = os.environ[JOURNAL]
    if path not in _files:
        _files[path] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(
        _files[path], f"{time.monotonic():.6f} {os.getpid()} {event} {tag} {number}\n".encode()
    )


def step(tag: str, number: int, seconds: float) -> None:
    """A step in a thread: its start, its work, its end."""
    mark("start", tag, number)
    time.sleep(seconds)
    mark("end", tag, number)


async def step_async(tag: str, number: int, seconds: float) -> None:
    """The same on an event loop; ``cut`` where it is interrupted."""
    mark("start", tag, number)
    try:
        await asyncio.sleep(seconds)
    except BaseException:
        mark("cut", tag, number)
        raise
    mark("end", tag, number)
