"""The remote services to which nodes are dispatched, as the deployer configures them.

The setting METRONOME_CONNECTORS names a TOML file with a table for each of them, by the node kind
that it does the work of, or by kind and subtype:

    [connectors.firecrawl]
    url = "https://crawler.internal/metronome"
    secret = "whsec_..."            # 24 to 64 random bytes in base64
    timeoutSeconds = 30             # of one request
    callbackTimeoutSeconds = 86400  # of the work, where it is answered later
    heartbeatSeconds = 60           # the longest silence meanwhile; absent: any
    replaySafe = false              # the same work may be sent twice

    [connectors."action.start_thread"]
    ...
"""

from __future__ import annotations

import base64
import binascii
import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.config import SettingsError

VARIABLE = "METRONOME_CONNECTORS"
KINDS = ("action", "imagine", "firecrawl", "database", "ticket", "function")
MAX_FILE = 1_000_000  # bytes

_SECRET = "whsec_"  # noqa: S105 - the prefix that every secret has
_MIN_SECRET, _MAX_SECRET = 24, 64  # bytes, as Standard Webhooks has it
_MAX_REQUEST = 3_600  # seconds
_MAX_WORK = 30 * 24 * 3_600  # seconds


@dataclass(frozen=True, slots=True)
class Connector:
    """One remote service that does the work of a node kind.

    ``secret`` signs what it is sent (Standard Webhooks). ``timeout_ms`` bounds one request;
    ``callback_timeout_ms`` how long it may work on after it has answered 202, counted from the
    step's start. ``heartbeat_ms`` is how long it may be silent meanwhile (None: as long as it
    likes). ``replay_safe`` says that it may be sent the same work twice.
    """

    name: str
    url: str = field(repr=False)  # its query may hold a secret
    secret: str = field(repr=False)
    timeout_ms: int = 30_000
    callback_timeout_ms: int = 24 * 3600 * 1000
    heartbeat_ms: int | None = None
    replay_safe: bool = False


def chosen(
    connectors: Mapping[str, Connector], kind: str, subtype: str | None = None
) -> Connector | None:
    """The connector for a node: that of its kind and subtype, else that of its kind, else None."""
    exact = connectors.get(f"{kind}.{subtype}") if subtype else None
    return exact or connectors.get(kind)


def replay_safe(connectors: Mapping[str, Connector], kind: str) -> bool:
    """Whether all connectors that may serve a kind may be sent the same work twice."""
    mine = [one for name, one in connectors.items() if name.partition(".")[0] == kind]
    return bool(mine) and all(one.replay_safe for one in mine)


def load(path: Path | None) -> dict[str, Connector]:
    """The connectors of the file by name, in its order; none where ``path`` is None.

    Raises SettingsError, which names the file, and the table and key of each fault.
    """
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise SettingsError([f"{VARIABLE}: can't read {path}: {error.strerror}"]) from None
    if len(content) > MAX_FILE:
        raise SettingsError([f"{VARIABLE}: {path} is bigger than {MAX_FILE:,} bytes"])
    try:
        document = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise SettingsError([f"{VARIABLE}: {path} is not UTF-8 at byte {error.start}"]) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError([f"{VARIABLE}: {path} is no TOML: {error}"]) from None
    found, problems = _read(document)
    if problems:
        raise SettingsError([f"{VARIABLE}: {path}: {problem}" for problem in problems])
    return found


def _read(document: Mapping[str, Any]) -> tuple[dict[str, Connector], list[str]]:
    problems = [_unknown(name, ["connectors"]) for name in document if name != "connectors"]
    tables = document.get("connectors", {})
    if not isinstance(tables, dict):
        return {}, [*problems, "connectors: expected tables such as [connectors.firecrawl]"]
    found = {}
    for name, table in tables.items():
        shown = f'connectors."{name}"' if "." in name else f"connectors.{name}"
        faults = list(_name_faults(name))
        if not isinstance(table, dict):
            faults.append("expected a table")
        elif not faults:
            faults = list(_faults(name, table))
        problems += [f"[{shown}] {fault}" for fault in faults]
        if not faults:
            found[name] = _connector(name, table)
    return found, problems


def _name_faults(name: str) -> Iterator[str]:
    kind, dot, subtype = name.partition(".")
    if kind not in KINDS:
        yield f"is no node kind that has connectors: {_hint(kind, KINDS)}"
    elif dot and not subtype:
        yield "names no subtype behind its dot"


def _faults(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    for key in table:
        if key not in _KEYS and isinstance(table[key], dict):
            yield f'{key} is unknown: a subtype is written [connectors."{name}.{key}"]'
        elif key not in _KEYS:
            yield _unknown(key, list(_KEYS))
    for key in ("url", "secret"):
        if key not in table:
            yield f"{key} is missing"
    for key, (fits, expected) in _KEYS.items():
        if key in table and not fits(table[key]):
            yield f"{key}: expected {expected}"


def _connector(name: str, table: Mapping[str, Any]) -> Connector:
    heartbeat = table.get("heartbeatSeconds")
    return Connector(
        name=name,
        url=table["url"],
        secret=table["secret"],
        timeout_ms=round(table.get("timeoutSeconds", 30) * 1000),
        callback_timeout_ms=round(table.get("callbackTimeoutSeconds", 24 * 3600) * 1000),
        heartbeat_ms=None if heartbeat is None else round(heartbeat * 1000),
        replay_safe=table.get("replaySafe", False),
    )


def _unknown(key: str, known: list[str]) -> str:
    return f"{key[:100]} is unknown: {_hint(key, known)}"


def _hint(word: str, known: list[str] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def _is_url(value: Any) -> bool:
    if not isinstance(value, str) or not value.isprintable() or " " in value or len(value) > 2_000:
        return False
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    plain = not parts.fragment and parts.username is None and parts.password is None
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain and port != 0


def _is_secret(value: Any) -> bool:
    if not isinstance(value, str) or not value.startswith(_SECRET):
        return False
    try:
        raw = base64.b64decode(value.removeprefix(_SECRET), validate=True)
    except (binascii.Error, ValueError):
        return False
    return _MIN_SECRET <= len(raw) <= _MAX_SECRET


def _is_seconds(value: Any, most: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0.1 <= value <= most


_KEYS = {
    "url": (_is_url, "an http or https URL without user name and fragment"),
    "secret": (
        _is_secret,
        f"{_SECRET} and the base64 of {_MIN_SECRET} to {_MAX_SECRET} random bytes",
    ),
    "timeoutSeconds": (
        lambda value: _is_seconds(value, _MAX_REQUEST),
        f"a number from 0.1 to {_MAX_REQUEST}",
    ),
    "callbackTimeoutSeconds": (
        lambda value: _is_seconds(value, _MAX_WORK),
        f"a number from 0.1 to {_MAX_WORK}",
    ),
    "heartbeatSeconds": (
        lambda value: _is_seconds(value, _MAX_WORK),
        f"a number from 0.1 to {_MAX_WORK}",
    ),
    "replaySafe": (lambda value: isinstance(value, bool), "true or false"),
}
