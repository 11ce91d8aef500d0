"""Every refusal: which exception is which HTTP status, and the one shape of an error's body.

``{"error": "Not Found", "message": "for people", "code": "for_programs", "details": {}}``
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response, request
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from app.api.requests import request_id
from app.db import LOCKED
from app.domain.errors import (
    Conflict,
    ExpressionError,
    Forbidden,
    Invalid,
    KeyUnproven,
    MetronomeError,
    NotFound,
    PreconditionFailed,
    Refused,
    Unauthorized,
    Unavailable,
    ValueRefused,
)

log = logging.getLogger(__name__)

STATUS: Mapping[type[MetronomeError], int] = {
    Refused: 400,
    Unauthorized: 401,
    KeyUnproven: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    PreconditionFailed: 412,
    Invalid: 422,
    ValueRefused: 422,
    ExpressionError: 422,
    Unavailable: 503,
}

# What HTTP itself refuses: the code for programs, and words of our own where they are clearer.
_HTTP: Mapping[int, tuple[str, str | None]] = {
    400: ("bad_request", None),
    404: ("path_not_found", "there is nothing at this path"),
    405: ("method_not_allowed", None),
    413: ("body_too_large", None),
    415: ("unsupported_media_type", None),
}

RETRY_AFTER = "2"  # seconds
_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": 'Bearer realm="metronome"'},
    503: {"Retry-After": RETRY_AFTER},
}
_READ_ONLY = "25006"  # SQLSTATE: a standby that is not promoted yet
_MAX_TEXT = 2_000  # characters of a text in an error, which may quote the request
_MAX_DETAILS = 100


def answer(
    status: int,
    message: str,
    code: str,
    *,
    details: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer to a refused request: the only place that makes an error's body."""
    body = {
        "error": HTTPStatus(status).phrase,
        "message": _storable(message),
        "code": code,
        "details": _storable(details or {}),
    }
    return Response(
        orjson.dumps(body),
        status,
        {**_HEADERS.get(status, {}), **(headers or {})},
        mimetype="application/json",
    )


def install(app: Flask) -> None:
    """Have ``app`` answer every exception. (HTTP's own come through ``docs.Api``.)"""
    app.register_error_handler(MetronomeError, refused)
    app.register_error_handler(DBAPIError, database_failed)
    app.register_error_handler(PoolTimeout, database_failed)
    app.register_error_handler(Exception, failed)


def refused(error: MetronomeError) -> Response:
    """The answer to one of our own exceptions."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), None)
    if status is None:
        return failed(error)
    return answer(status, error.message, error.code, details=error.details)


def http_refused(error: HTTPException) -> Response:
    """The answer to an exception of Flask's, such as 405."""
    status = error.code or 500
    if status >= 500:
        return failed(error)
    code, message = _HTTP.get(status, (HTTPStatus(status).name.lower(), None))
    if status == 413:
        message = f"the body is bigger than {request.max_content_length:,} bytes"
    kept = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return answer(
        status, message or error.description or HTTPStatus(status).phrase, code, headers=kept
    )


def database_failed(error: Exception) -> Response:
    """The answer where the database is away, or busy: nothing the caller did."""
    state = getattr(getattr(error, "orig", None), "pgcode", None)
    if state == LOCKED:
        message = "somebody else is changing this just now; send the request again"
        return answer(503, message, "busy")
    away = isinstance(error, OperationalError | InterfaceError | PoolTimeout)
    # Where the server crashes in the middle of its answer, libpq may have no class for that.
    gone = getattr(error, "connection_invalidated", False)
    if away or gone or state == _READ_ONLY:
        log.warning(
            "the database can't be used", extra={"requestId": request_id(), "error": str(error)}
        )
        message = "the database can't be reached just now; send the request again"
        return answer(503, message, "database_unavailable")
    return failed(error)


def failed(error: Exception) -> Response:
    """The answer to a fault of ours: the log has the traceback, the caller its number."""
    log.error("request failed", exc_info=error, extra={"requestId": request_id()})
    message = f"something went wrong here; the log has more about the request {request_id()}"
    return answer(500, message, "internal_error", details={"requestId": request_id()})


def _storable(value: Any) -> Any:
    """``value`` with all that a hostile request could bring into it made short and plain text."""
    if isinstance(value, str):
        shown = value.encode("utf-8", "backslashreplace").decode()
        return shown if len(shown) <= _MAX_TEXT else shown[:_MAX_TEXT] + "..."
    if isinstance(value, Mapping):
        some = list(value.items())[:_MAX_DETAILS]
        return {_storable(str(key)): _storable(item) for key, item in some}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value[:_MAX_DETAILS]]
    return value
