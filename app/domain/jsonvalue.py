"""The guard in front of every JSON value that the database is to keep.

PostgreSQL refuses NUL and lone surrogates in the middle of a batch; NaN, huge integers and endless
nesting break readers later. So a value is checked where it enters, and the error names the place.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

from app.domain.errors import ValueRefused

MAX_DEPTH = 64
MAX_INT = 2**63 - 1
MIN_INT = -(2**63)

_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_STRICT = _OPTIONS | orjson.OPT_STRICT_INTEGER
_SHOWN_KEY = 60  # characters of a key in a path

# A path is a linked list, so that walking a value makes no strings: (path of the parent, key).
_Path = tuple[Any, "str | int"] | None


def dumps(value: Any, field: str, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> str:
    """Compact JSON text of ``value``, checked so that the database can keep it.

    ``field`` is what the value is called in errors, such as ``input``; ``max_bytes`` is the most
    that the text may have in UTF-8. Tuples become lists, UUIDs and enum members their values.
    Raises ValueRefused, which names the path of the fault (``input.a.3``).
    """
    try:
        raw = orjson.dumps(value, option=_STRICT)
    except TypeError:
        # An integer above 53 bits is legal here; everything else that orjson refuses has a path.
        _walk(value, field, max_bytes, max_depth)
        raw = _dump_wide(value, field)
    else:
        if _is_suspicious(raw, max_depth):
            _walk(value, field, max_bytes, max_depth)
    if len(raw) > max_bytes:
        raise _too_big(field, max_bytes)
    return raw.decode()


def check_json(value: Any, field: str, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> None:
    """Raise ValueRefused where ``dumps`` would; see there for the arguments."""
    dumps(value, field, max_bytes=max_bytes, max_depth=max_depth)


def same_json(one: Any, other: Any) -> bool:
    """Whether two values as ``json.loads`` gives them are the same JSON: true is not 1.

    The order of fields does not count. Values that are nested too deeply to compare are not.
    """
    try:
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    except RecursionError:
        return False


def clean_text(text: str, most: int) -> str:
    """``text`` made storable: NUL and lone surrogates are replaced; cut at ``most`` characters.

    For texts from outside (error messages, bodies) that must not fail because of a character.
    """
    if len(text) > most:
        text = text[:most] + "..."
    text = text.replace("\x00", "\ufffd")
    # Through UTF-16, as that joins two surrogates that belong together.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_suspicious(raw: bytes, max_depth: int) -> bool:
    """Whether the JSON text may hide a fault; a false alarm only costs the walk."""
    return (
        b"\\u0000" in raw
        or b"null" in raw  # orjson writes NaN and Infinity as null
        or raw.count(b"[") + raw.count(b"{") > max_depth
    )


def _dump_wide(value: Any, field: str) -> bytes:
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except TypeError as error:
        raise _refused(field, None, f"can't be written as JSON: {error}") from None


def _walk(root: Any, field: str, max_bytes: int, max_depth: int) -> None:
    """Look at every value below ``root`` with a stack of its own, so that depth can't hurt."""
    stack: list[tuple[Any, int, _Path]] = [(root, 0, None)]
    left = max_bytes  # each value takes a byte at least
    while stack:
        value, depth, path = stack.pop()
        left -= 1
        if left < 0:
            raise _too_big(field, max_bytes)
        if value is None or value is True or value is False:
            continue
        if isinstance(value, Enum):
            stack.append((value.value, depth, path))
        elif isinstance(value, str):
            _check_text(value, field, path)
        elif isinstance(value, int):
            if not MIN_INT <= value <= MAX_INT:
                raise _refused(field, path, "is an integer beyond 64 bits")
        elif isinstance(value, float):
            if value - value != 0.0:  # only NaN and the infinities differ from themselves so
                raise _refused(field, path, f"is {value}, which JSON can't hold")
        elif isinstance(value, dict):
            if depth >= max_depth:
                raise _refused(field, None, f"is nested deeper than {max_depth} levels")
            for key, item in value.items():
                if not isinstance(key, str):
                    raise _refused(field, path, f"has a key that is no text: {str(key)[:40]!r}")
                _check_text(key, field, path, what="has a key with")
                stack.append((item, depth + 1, (path, key)))
        elif isinstance(value, (list, tuple)):
            if depth >= max_depth:
                raise _refused(field, None, f"is nested deeper than {max_depth} levels")
            stack.extend((item, depth + 1, (path, index)) for index, item in enumerate(value))
        elif not isinstance(value, UUID):
            kind = type(value).__name__
            raise _refused(field, path, f"is of the type {kind}, which JSON can't hold")


def _check_text(text: str, field: str, path: _Path, *, what: str = "holds") -> None:
    if "\x00" in text:
        raise _refused(field, path, f"{what} a NUL character, which can't be stored")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _refused(field, path, f"{what} a lone surrogate, which is no text") from None


def _refused(field: str, path: _Path, message: str) -> ValueRefused:
    keys: list[str] = []
    while path is not None:
        path, key = path
        shown = str(key).encode("ascii", "backslashreplace").decode()
        keys.append(shown if len(shown) <= _SHOWN_KEY else shown[:_SHOWN_KEY] + "...")
    if len(keys) > MAX_DEPTH:
        keys = [*keys[:2], "...", *keys[-3:]]
    where = ".".join([field, *reversed(keys)])
    return ValueRefused(f"{where} {message}", details={where: [message]})


def _too_big(field: str, max_bytes: int) -> ValueRefused:
    return _refused(field, None, f"is bigger than {max_bytes:,} bytes as JSON")
