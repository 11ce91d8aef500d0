"""Nodes that only compute: they are run before anybody knows whether their run goes on."""

from __future__ import annotations

from app.nodes import RUNNABLE
from app.nodes.base import NodeKind, NodeLimits


def test_what_is_run_ahead_has_no_effect_and_waits_for_nothing() -> None:
    pure = {name: kind for name, kind in RUNNABLE.items() if kind.pure}
    assert set(pure) == {"trigger", "condition", "transform", "note", "end", "fixture"}
    for kind in pure.values():
        assert kind.effect is None
        assert kind.connector({}, NodeLimits()) is None
        assert kind.replay_safe({}, NodeLimits())
        assert not kind.interruptible
        assert type(kind).resume is NodeKind.resume
