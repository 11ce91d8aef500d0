"""What a config may hold, as data: the fields of a node kind, each with its JSON Schema.

Everything else is made from that: the schemas that the API shows (schemas.py), and where
publishing looks for expressions (domain/sources.py). A kind's own ``check`` and ``missing`` say the
same in sentences; a test holds the two together. JSON Schema knows nothing of our expressions, so
texts have formats of ours:

==============  ==============================================================
``bindings``    a text whose ``{{ }}`` parse
``expression``  an expression without braces, or with them around the whole
``json``        a text that holds JSON, or will once its bindings are filled in
``seconds``     a number as text, or with bindings
``moment``      a date or time in ISO 8601, or with bindings
``http-url``    an absolute http or https URL, or a text with bindings
==============  ==============================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Schema = Mapping[str, Any]

BINDINGS: Final[Schema] = {"$ref": "#/$defs/bindings"}
ABSENT: Final = (None, "")  # what a form leaves behind
HAS_BINDINGS: Final[Schema] = {"type": "string", "pattern": r"\{\{", "format": "bindings"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a config, or of an output.

    ``needed`` says that a draft may lack it, but nothing that is to run.
    """

    name: str
    schema: Schema
    needed: bool = False


def text_field(name: str, told: str, *, bindings: bool = True, needed: bool = False) -> Field:
    """A text, with bindings where nothing else is said."""
    schema: dict[str, Any] = {"type": "string" if needed else ["string", "null"]}
    if bindings:
        schema["format"] = "bindings"
    if needed:
        schema["minLength"] = 1
    return Field(name, {**schema, "description": told}, needed)


def flag(name: str, told: str, *, default: bool) -> Field:
    """true or false."""
    schema = {"type": ["boolean", "null"], "default": default, "description": told}
    return Field(name, schema)


def whole(name: str, told: str, least: int, most: int) -> Field:
    """A whole number."""
    bounds = {"minimum": least, "maximum": most}
    return Field(name, {"type": ["integer", "null"], **bounds, "description": told})


def choice(name: str, told: str, words: Iterable[str], *, default: str) -> Field:
    """One of a few words; null and the empty text stand for ``default``."""
    return Field(name, {"enum": [*words, *ABSENT], "default": default, "description": told})


def anything(name: str, told: str, *, needed: bool = False) -> Field:
    """Any JSON, with bindings in its texts."""
    return Field(name, {**BINDINGS, "description": told}, needed)


def expression(name: str, told: str, **more: Any) -> Field:
    """An expression; ``more`` are further keywords of its schema."""
    schema = {
        "anyOf": [{"enum": list(ABSENT)}, {"type": "string", "format": "expression"}],
        "description": told,
    }
    return Field(name, schema | more)


def json_text(name: str, told: str) -> Field:
    """A text that holds JSON."""
    schema = {"anyOf": [{"enum": list(ABSENT)}, {"type": "string", "format": "json"}]}
    return Field(name, {**schema, "description": told})


def seconds(name: str, told: str, most: float) -> Field:
    """A number of seconds, also as a text."""
    numbers = {"type": "number", "minimum": 0, "maximum": most}
    texts = {"type": "string", "format": "seconds"}
    return Field(name, {"anyOf": [{"enum": list(ABSENT)}, numbers, texts], "description": told})


def moment(name: str, told: str) -> Field:
    """A moment in ISO 8601."""
    schema = {"anyOf": [{"enum": list(ABSENT)}, {"type": "string", "format": "moment"}]}
    return Field(name, {**schema, "description": told})


def output(name: str, told: str, **schema: Any) -> Field:
    """A field of what a node answers."""
    return Field(name, {**schema, "description": told})


# -- what holds between the fields of a config


def given(name: str, absent: Iterable[Any] = ABSENT) -> dict[str, Any]:
    """Holds where the config has the field, and not as one of ``absent``."""
    return {"required": [name], "properties": {name: {"not": {"enum": list(absent)}}}}


def one_of_them(*names: str) -> Schema:
    """At least one of the fields is given."""
    return {"anyOf": [given(name) for name in names]}


def not_both(one: Mapping[str, Any], other: Mapping[str, Any]) -> Schema:
    """At most one of two conditions holds."""
    return {"not": {"allOf": [one, other]}}


def json_or_text(name: str) -> Schema:
    """Not both of ``name`` (any JSON) and ``nameJson`` (a text)."""
    return not_both(given(name, (None,)), given(f"{name}Json"))
