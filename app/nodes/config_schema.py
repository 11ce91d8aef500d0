"""The JSON Schema (2020-12) of a config, made from its fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.shape_nodes import MAX_ATTEMPTS, MAX_BACKOFF_SECONDS, MAX_TIMEOUT_MS, OUTPUT_KEY
from app.nodes.fields import BINDINGS, Field, Schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ANY_WITH_BINDINGS = {
    "description": "Any JSON; the {{ }} in its texts are filled in.",
    "format": "bindings",
    "items": BINDINGS,
    "additionalProperties": BINDINGS,
}
_EVERY_CONFIG: Mapping[str, Any] = {
    "outputKey": {
        "anyOf": [{"enum": [None, ""]}, {"type": "string", "pattern": OUTPUT_KEY}],
        "description": "Another name for steps.<id>.output; one that no other node has.",
    },
    "timeoutMs": {
        "type": ["integer", "null"],
        "minimum": 1,
        "maximum": MAX_TIMEOUT_MS,
        "description": "How long one start of the node may take, waiting included.",
    },
    "retry": {
        "type": ["object", "null"],
        "properties": {
            "maxAttempts": {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_ATTEMPTS},
            "backoffSeconds": {
                "type": ["number", "null"],
                "minimum": 0,
                "maximum": MAX_BACKOFF_SECONDS,
            },
        },
        "description": "How often the node is started, and the wait before the second start.",
    },
}


def config_schema(
    fields: Iterable[Field], rules: Iterable[Schema] = (), other: Schema | None = None
) -> dict[str, Any]:
    """What a config with these fields may hold, beside what every config may.

    A draft may lack what is required. ``rules`` are schemas of the whole config, ``other`` has the
    keywords for the fields that have no name.
    """
    found, between = list(fields), list(rules)
    needed = [field.name for field in found if field.needed]
    return {
        "$schema": DIALECT,
        "type": "object",
        "properties": {**{field.name: field.schema for field in found}, **_EVERY_CONFIG},
        **({"required": needed} if needed else {}),
        **(other or {}),
        **({"allOf": between} if between else {}),
        "$defs": {"bindings": _ANY_WITH_BINDINGS},
    }


def output_schema(fields: Iterable[Field] | None) -> dict[str, Any]:
    """What an output with these fields is; any object where they are None."""
    schema: dict[str, Any] = {"$schema": DIALECT, "type": "object"}
    if fields is None:
        return schema
    properties = {field.name: field.schema for field in fields}
    return {**schema, "properties": properties, "additionalProperties": False}
