"""The node kinds that can run, by name. A new kind is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.domain.shape import NOT_BUILT
from app.nodes.base import NodeKind
from app.nodes.condition import Condition
from app.nodes.delay import Delay
from app.nodes.end import End
from app.nodes.function import Function
from app.nodes.http import Http
from app.nodes.note import Note
from app.nodes.transform import Transform
from app.nodes.trigger import Trigger

__all__ = ["NOT_BUILT", "REGISTRY"]

REGISTRY: Final[Mapping[str, NodeKind]] = {
    "trigger": Trigger(),
    "condition": Condition(),
    "transform": Transform(),
    "delay": Delay(),
    "http": Http(),
    "function": Function(),
    "note": Note(),
    "end": End(),
}
