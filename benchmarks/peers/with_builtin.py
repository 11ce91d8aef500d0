"""Metronome once more, with nodes that only compute: notes and transforms, and no function.

Their steps ride along with the next boundary, so that a commit carries many of them. A step of the
others is a function call in any case; nobody has a step that is known to have no effect.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.peers import side, with_metronome
from benchmarks.peers.work import Kind
from benchmarks.steps import chain


def _definition(kind: Kind) -> dict[str, Any]:
    return chain()


def prepare(url: str) -> None:
    """The same, with other workflows."""
    with_metronome.prepare(url, _definition)


PEER = replace(with_metronome.PEER, title="Metronome, built-in nodes", prepare=prepare)

if __name__ == "__main__":
    side.main(PEER)
