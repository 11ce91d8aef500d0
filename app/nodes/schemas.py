"""The node kinds as data: what the API shows of them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from app.nodes import REGISTRY
from app.nodes.base import NodeKind
from app.nodes.condition import OPERATORS
from app.nodes.config_schema import config_schema, output_schema
from app.nodes.loop import LOOP_TYPES
from app.nodes.trigger_types import COMMON, TRIGGER_TYPES


def trigger_schema(trigger_type: str) -> dict[str, Any]:
    """What the config of a trigger of that type may hold."""
    return config_schema((*COMMON, *TRIGGER_TYPES[trigger_type].fields))


@lru_cache(maxsize=1)
def node_schemas() -> dict[str, Any]:
    """All kinds, trigger types, operators of conditions and types of loops."""
    return {
        "kinds": [_kind(kind) for kind in REGISTRY.values()],
        "triggerTypes": [
            {"type": name, "description": one.told, "configSchema": trigger_schema(name)}
            for name, one in TRIGGER_TYPES.items()
        ],
        "conditionOperators": [
            {"operator": name, "description": f"The field {told}."}
            for name, told in OPERATORS.items()
        ],
        "loopTypes": list(LOOP_TYPES),
    }


def _kind(kind: NodeKind) -> dict[str, Any]:
    return {
        "kind": kind.kind,
        "subtypes": list(kind.subtypes or kind.usual_subtypes),
        "title": kind.title,
        "description": kind.told,
        "configSchema": kind.config_schema,
        "outputSchema": output_schema(kind.outputs),
        "handles": [{"handle": name, "description": told} for name, told in kind.handles.items()],
        "interruptible": kind.interruptible,
        "replaySafe": kind.replay_safe_where is None,
        "replaySafeWhere": kind.replay_safe_where,
    }
