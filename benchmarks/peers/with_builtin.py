"""Metronome once more, with nodes that only compute: notes and transforms, and no function.

Their steps ride along with the next boundary, so that a commit carries many of them. The others
have no such steps: only the rate is shown.
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
