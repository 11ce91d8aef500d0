"""Logs: one JSON object a line on standard error, with whatever ids the caller passes as ``extra``.

log.info("run claimed", extra={"runId": run.id, "executorId": me})
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

# What every record has; all else was given as ``extra``.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

_SECRET_NAME = re.compile(r"authorization|password|secret|api_?key|cookie", re.IGNORECASE)
_SECRETS = (
    re.compile(r"(?i)(\bbearer\s+)[^\s\"',;]+"),
    re.compile(
        r"(?i)(\bauthorization\b[\"']?\s*[:=]\s*[\"']?(?:basic\s+)?)(?!bearer\s)[^\s\"',;]+"
    ),
    re.compile(r"(://[^\s:/@]+:)[^\s@/]+(?=@)"),
)


def redact(text: str) -> str:
    """``text`` with bearer keys, Authorization values and passwords in URLs replaced by ``***``."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    return text


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {key: "***" if _SECRET_NAME.search(key) else value for key, value in extra.items()}


def _clean(value: Any) -> Any:
    """What orjson is given instead of a value that it does not know."""
    return redact(repr(value)).encode("utf-8", "backslashreplace").decode()


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: ts, level, logger, msg, the extra fields, and exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        entry: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": redact(record.getMessage()),
        }
        for key, value in _fields(record).items():
            entry[key] = redact(value) if isinstance(value, str) else value
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        options = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z
        try:
            return orjson.dumps(entry, default=_clean, option=options).decode()
        except TypeError:  # a lone surrogate, or an integer beyond 64 bits, deep inside
            return orjson.dumps({key: _clean(value) for key, value in entry.items()}).decode()


class PlainFormatter(logging.Formatter):
    """A record as a line for people: time, level, message, then the extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line of text, with the traceback below it."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        text = f"{clock} {record.levelname.lower():7} {record.getMessage()}{fields}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return redact(text)


def configure(level: str, *, pretty: bool = False, stream: TextIO | None = None) -> None:
    """Send the logs of this process to ``stream`` (standard error).

    ``level`` is debug, info, warning or error. ``pretty`` gives lines for people instead of JSON.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(PlainFormatter() if pretty else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a full disk or a closed pipe must not break the work
