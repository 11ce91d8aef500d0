"""What goes out: records as the contract's JSON, by hand: marshmallow takes fifty times as long.

A test holds these against the schemas that the documentation is made from.
"""

from __future__ import annotations

from app.api.dump.answers import answer
from app.api.dump.metronomes import metronome
from app.api.dump.runs import WAITS, approval, compact_run, run, run_view, step

__all__ = ["WAITS", "answer", "approval", "compact_run", "metronome", "run", "run_view", "step"]
