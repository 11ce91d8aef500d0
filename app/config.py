"""Every setting, read from the environment once and checked as a whole.

This is the only module that reads the environment.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Read by the commands that talk to a server. Known here only so that they are not called typos.
CLIENT_VARIABLES = frozenset({"METRONOME_URL", "METRONOME_API_KEY"})

# Of a body that nobody wanted, that the API still reads: behind it the connection is closed.
MAX_UNREAD_BYTES = 10_000_000

Parser = Callable[[str], Any]

_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?")


class SettingsError(Exception):
    """One or more settings can't be used; ``problems`` holds a sentence for each of them."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "\n".join(["These settings can't be used:", *(f"  {p}" for p in problems)])
        )


def mask_url(url: str) -> str:
    """``url`` with the password of its user part, or of its query, replaced by ``***``."""
    try:
        user, at, _ = urlsplit(url).netloc.rpartition("@")
    except ValueError:
        return "***"
    name, colon, _ = user.partition(":")
    if colon:
        url = url.replace(user + at, f"{name}:***@", 1)
    return re.sub(r"([?&](?:ssl)?password=)[^&#]*", r"\1***", url)


def _whole(low: int, high: int) -> Parser:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(low: float, high: float) -> Parser:
    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not low <= float(text) <= high:
            raise ValueError(f"seconds, a number from {low:g} to {high:g}")
        return float(text)

    return parse


def _choice(values: Mapping[str, Any]) -> Parser:
    def parse(text: str) -> Any:
        if text.lower() not in values:
            raise ValueError("one of " + ", ".join(values))
        return values[text.lower()]

    return parse


def _database_url(text: str) -> str:
    expected = "postgresql://user:password@host:port/database"
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in {"postgres", "postgresql"} or not text.isprintable():
        raise ValueError(expected)
    return text


def _home(text: str) -> Path:
    if "\0" in text:
        raise ValueError("a directory")
    return Path(os.path.abspath(Path(text).expanduser()))


def _file(text: str) -> Path:
    if "\0" in text:
        raise ValueError("the path of a file")
    return Path(os.path.abspath(Path(text).expanduser()))


def _public_url(text: str) -> str:
    expected = "an http or https URL without user name, query and fragment"
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError(expected) from None
    if not usable or set(text) & set("@?# ") or not text.isprintable():
        raise ValueError(expected)
    return text.rstrip("/")


def _host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        if _HOST.fullmatch(text):
            return text
    raise ValueError("a host name or an IP address to listen on")


def _bootstrap_key(text: str) -> str:
    if not re.fullmatch(r"[!-~]{20,200}", text):
        raise ValueError("20 to 200 printable ASCII characters without spaces")
    return text


def _private_hosts(text: str) -> tuple[str, ...]:
    entries = tuple(entry.strip() for entry in text.split(",") if entry.strip())
    for entry in entries:
        try:
            ipaddress.ip_network(entry, strict=False)
        except ValueError:
            if not _HOST.fullmatch(entry) or re.fullmatch(r"[0-9.]+", entry):
                raise ValueError(
                    "host names, IP addresses or networks such as 10.0.0.0/8, between commas"
                ) from None
    return entries


_SWITCH = {"on": True, "off": False, "true": True, "false": False, "1": True, "0": False}
_LIVENESS = {"auto": "auto", "off": "off"}
_LEVELS = {level: level for level in ("debug", "info", "warning", "error")}


def _setting(variable: str, parse: Parser, default: Any, *, secret: bool = False) -> Any:
    return dataclasses.field(
        default=default,
        repr=not secret,
        metadata={"variable": variable, "parse": parse, "secret": secret},
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a process. Times are in seconds, sizes in bytes.

    ``database_url`` is None where a private PostgreSQL in ``home`` is to be used;
    ``public_url`` where ``base_url`` can be made from host and port.
    """

    database_url: str | None = _setting("DATABASE_URL", _database_url, None, secret=True)
    home: Path = dataclasses.field(
        default_factory=lambda: _home("var"),
        metadata={"variable": "METRONOME_HOME", "parse": _home, "secret": False},
    )
    host: str = _setting("HOST", _host, "127.0.0.1")
    port: int = _setting("PORT", _whole(1, 65535), 8000)
    bootstrap_key: str | None = _setting(
        "METRONOME_BOOTSTRAP_KEY", _bootstrap_key, None, secret=True
    )
    executor_threads: int = _setting("METRONOME_EXECUTOR_THREADS", _whole(1, 256), 8)
    lease_seconds: float = _setting("METRONOME_LEASE_SECONDS", _seconds(1, 3600), 10.0)
    poll_seconds: float = _setting("METRONOME_POLL_SECONDS", _seconds(0.05, 60), 1.0)
    listen: bool = _setting("METRONOME_LISTEN", _choice(_SWITCH), True)
    liveness: str = _setting("METRONOME_LIVENESS", _choice(_LIVENESS), "auto")
    grace_seconds: float = _setting("METRONOME_GRACE_SECONDS", _seconds(0, 3600), 10.0)
    log_level: str = _setting("METRONOME_LOG_LEVEL", _choice(_LEVELS), "info")
    web_workers: int = _setting("METRONOME_WEB_WORKERS", _whole(1, 64), 2)
    web_threads: int = _setting("METRONOME_WEB_THREADS", _whole(1, 256), 4)
    http_allow_private: tuple[str, ...] = _setting(
        "METRONOME_HTTP_ALLOW_PRIVATE", _private_hosts, ()
    )
    connectors_file: Path | None = dataclasses.field(
        default=None,
        metadata={"variable": "METRONOME_CONNECTORS", "parse": _file, "secret": False},
    )
    public_url: str | None = _setting("METRONOME_PUBLIC_URL", _public_url, None)
    max_body_bytes: int = _setting(
        "METRONOME_MAX_BODY_BYTES", _whole(1_000, 100_000_000), 1_000_000
    )
    max_output_bytes: int = _setting(
        "METRONOME_MAX_OUTPUT_BYTES", _whole(1_000, 100_000_000), 1_000_000
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Settings from environment variables; one that is unset or empty takes its default.

        :raises SettingsError: naming every variable that can't be used, with what is expected.
        """
        values: dict[str, Any] = {}
        problems: list[str] = []
        for field in dataclasses.fields(cls):
            variable = field.metadata["variable"]
            text = environ.get(variable, "").strip()
            if not text:
                continue
            try:
                values[field.name] = field.metadata["parse"](text)
            except ValueError as error:
                shown = "(hidden)" if field.metadata["secret"] else repr(text)
                problems.append(f"{variable} is {shown}: expected {error}")
        problems += _unknown(environ)
        if problems:
            raise SettingsError(problems)
        return cls(**values)

    def to_env(self) -> dict[str, str]:
        """The environment variables from which ``from_env`` makes these settings again."""
        env: dict[str, str] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool):
                value = "on" if value else "off"
            elif isinstance(value, tuple):
                value = ",".join(value)
            env[field.metadata["variable"]] = "" if value is None else str(value)
        return env

    def child_environment(self) -> dict[str, str]:
        """This process's environment for a part that is to have these settings.

        Without the bootstrap key, which no part needs.
        """
        return {**os.environ, **dataclasses.replace(self, bootstrap_key=None).to_env()}

    @property
    def address(self) -> str:
        """Host and port as they stand in a URL: IPv6 addresses in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """Where others reach the API, without a slash at the end: those who call back."""
        if self.public_url is not None:
            return self.public_url
        anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - listened on by the deployer
        reached = dataclasses.replace(self, host=anywhere.get(self.host, self.host))
        return f"http://{reached.address}"

    def __str__(self) -> str:
        database = mask_url(self.database_url) if self.database_url else "embedded"
        return f"{self!r} on {database}"


def variables() -> tuple[str, ...]:
    """The names of all environment variables that ``Settings`` reads."""
    return tuple(field.metadata["variable"] for field in dataclasses.fields(Settings))


def _unknown(environ: Mapping[str, str]) -> list[str]:
    prefix = "METRONOME_"
    # Compared without the prefix, which would make any two of them look alike.
    known = {name.removeprefix(prefix): name for name in (*variables(), *CLIENT_VARIABLES)}
    problems = []
    for name in sorted(environ):
        if name.startswith(prefix) and name not in known.values():
            rest = name.removeprefix(prefix)
            longer = [one for one in known if rest and one.startswith(rest)]
            close = longer or difflib.get_close_matches(rest, known, n=1)
            hint = f"did you mean {known[close[0]]}?" if close else "there is no such setting"
            problems.append(f"{name} is unknown: {hint}")
    return problems
