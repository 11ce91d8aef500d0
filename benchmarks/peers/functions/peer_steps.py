"""The step of the comparison as a function of a function node."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.work import step


def peer_step(payload: dict[str, Any]) -> dict[str, Any]:
    """What every peer's step does."""
    step(payload["tag"], payload["number"], payload["seconds"])
    return {}


def peer_nothing(payload: dict[str, Any]) -> dict[str, Any]:
    """A step that does nothing."""
    return {}


peer_nothing.metronome_replay_safe = True  # type: ignore[attr-defined]
peer_step.metronome_replay_safe = True  # type: ignore[attr-defined]
