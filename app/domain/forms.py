"""The two forms in which a node may be written, read as one.

``{id, kind, subtype, config, ...}``, and that of visual builders, which keep what matters below
``data``: ``{id, position, data: {kind, subtype, config, ...}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What a node of these kinds does may be said by its subtype alone.
_SUBTYPE_FIELDS = {"loop": "loopType", "metronome": "operation", "table": "operation"}


def has_data(node: Mapping[str, Any]) -> bool:
    """Whether a node is of the visual builders' form."""
    return "kind" not in node and isinstance(node.get("data"), dict)


def body_of(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object that has the node's kind, subtype, label and config."""
    body: Mapping[str, Any] = node["data"] if has_data(node) else node
    return body


def config_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of a node's body, an object; the subtype stands in where it alone says what to do.

    A loop with the subtype ``for_each`` has the ``loopType`` for_each; a table with the subtype
    ``parse_csv`` has that ``operation``.
    """
    config: Mapping[str, Any] = body.get("config") or {}
    kind, subtype = body.get("kind"), body.get("subtype")
    field = _SUBTYPE_FIELDS.get(kind) if isinstance(kind, str) else None
    if field is None or not isinstance(subtype, str) or not subtype or config.get(field):
        return config
    return {**config, field: subtype}
