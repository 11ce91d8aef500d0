"""The node kinds that can run, by name. A new kind is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.nodes.approval import Approval
from app.nodes.base import NodeKind
from app.nodes.condition import Condition
from app.nodes.delay import Delay
from app.nodes.end import End
from app.nodes.fixture import Fixture
from app.nodes.function import Function
from app.nodes.http import Http
from app.nodes.loop import Loop
from app.nodes.metronome import MetronomeRun
from app.nodes.note import Note
from app.nodes.remote import Action, DatabaseDocument, Firecrawl, Imagine, Ticket
from app.nodes.table import Table
from app.nodes.transform import Transform
from app.nodes.trigger import Trigger

__all__ = ["REGISTRY", "RUNNABLE"]

REGISTRY: Final[Mapping[str, NodeKind]] = {
    "trigger": Trigger(),
    "condition": Condition(),
    "loop": Loop(),
    "transform": Transform(),
    "delay": Delay(),
    "approval": Approval(),
    "metronome": MetronomeRun(),
    "http": Http(),
    "function": Function(),
    "action": Action(),
    "imagine": Imagine(),
    "firecrawl": Firecrawl(),
    "database": DatabaseDocument(),
    "ticket": Ticket(),
    "table": Table(),
    "note": Note(),
    "end": End(),
}

# What an executor can run: in addition the stand-ins, which no definition of a user may hold.
RUNNABLE: Final[Mapping[str, NodeKind]] = {**REGISTRY, Fixture.kind: Fixture()}
