"""Values at both sides of every border that a JSON Schema of ours draws; most are inside.

Made by a seeded Random: of what Hypothesis tries, too little fits all fields at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

_TEXTS = (
    *("n", "n > 1", "for_each", "until", "fixed_count", "fail", "approve", "reject"),
    *(
        "run_workflow",
        "parse_csv",
        "tab",
        ";",
        '"',
        "\n",
        ";;",
        "5",
        " 12 ",
        "1e3",
        "100001",
        "0100000",
    ),
    *("2030-01-01", "2030-01-31T08:00:00Z", "08:00", "get", "POST", "FETCH", "equals", "gt"),
    *("https://example.org/a", "ftp://example.org", "https://u:p@example.org", "example.org"),
    *("{{ n }}", "{{ n }} x", "{{", "{{ n", '{"a": "{{ n }}"}', "[{{ n }}]", '{"a": 1}', "["),
    *("else", "error", "large", "loop", "not", "my_key", "my key", "loopx", "\\t", "n +", " ", ""),
    *("\u00e4\u00f6", "\u2028", "x" * 64, "x" * 65, "x" * 128, "x" * 129),
)
_GOOD: Mapping[str, Sequence[str]] = {
    "": ("a", "b", "c", "my_key"),
    "bindings": ("a", "{{ n }}"),
    "expression": ("n > 1", "{{ n }}"),
    "json": ('{"a": "{{ n }}"}', "[{{ n }}]"),
    "seconds": ("5", "{{ n }}"),
    "moment": ("2030-01-01", "{{ n }}"),
    "http-url": ("https://example.org/a", "{{ n }}"),
}
_BINDINGS: Sequence[Any] = ("{{ n }}", {"a": ["{{ n }}"]}, "a", 0, None, [1, {}])
_SMALL = 6  # fields of which any number comes together; of more, four do at the most


class Maker:
    """Makes values, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def config(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """A config: the fields that are needed, and some others."""
        more = {"other": {"$ref": ""}, "otherJson": {"type": "string", "format": "json"}}
        return self._object({**schema, "properties": {**schema["properties"], **more}})

    def near(self, schema: Mapping[str, Any]) -> Any:
        """A value that fits a schema, or nearly so, or is anything."""
        return self._inside(schema) if self._one_in(12) else self._any()

    def _inside(self, schema: Mapping[str, Any]) -> Any:
        if "anyOf" in schema:
            return self._inside(self._random.choice(schema["anyOf"]))
        if "$ref" in schema:
            return self._random.choice(_BINDINGS)
        if "enum" in schema:
            return self._random.choice([*schema["enum"], "other"])
        types = schema.get("type")
        if types is None:
            return self._any()
        return self._of([types] if isinstance(types, str) else types, schema)

    def _of(self, types: Sequence[str], schema: Mapping[str, Any]) -> Any:
        kind = self._random.choice([*types, types[0], types[0]])
        if kind in ("integer", "number"):
            low, high = schema.get("minimum", 0), schema.get("maximum", 10)
            # A float that is whole is an integer for JSON Schema, but not for us.
            inside = [low, low + 1, high - 1, high] * 3
            return self._random.choice([*inside, low - 1, high + 1, 0.5])
        if kind == "array":
            items = [self.near(schema.get("items", {})) for _ in range(self._random.randrange(4))]
            return items if self._one_in(10) else (items or [0]) * 101
        if kind == "object":
            return self._object(schema)
        if kind == "string":
            good = _GOOD[schema.get("format", "")]
            return self._random.choice(good if self._one_in(5) else _TEXTS)
        return self._random.choice((True, False)) if kind == "boolean" else None

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        fields = dict(schema.get("properties", {}))
        if not fields:
            fields = {"a": schema.get("additionalProperties", {})}
        most = len(fields) if len(fields) <= _SMALL else 4
        some = self._random.sample(sorted(fields), self._random.randint(0, most))
        needed = schema.get("required", ())
        names = dict.fromkeys([*needed, *some]) if self._one_in(20) else dict.fromkeys(some)
        return {name: self.near(fields[name]) for name in names}

    def _any(self) -> Any:
        return self._random.choice(
            (
                *(None, "", True, False, 0, 1, -1, 0.5, 600),
                *([], {}, [None], {"a": "{{"}, ["{{ n }}"]),
                *self._random.sample(_TEXTS, 8),
            )
        )

    def _one_in(self, times: int) -> int:
        """0 once in so many times."""
        return self._random.randrange(times)
