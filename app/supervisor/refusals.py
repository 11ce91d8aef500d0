"""What gunicorn refuses before the application sees it, in the one shape of an error's body."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import orjson
from gunicorn import util

from app.ids import new_id

log = logging.getLogger(__name__)

CODES: Final[Mapping[int, str]] = {
    400: "bad_request",
    403: "forbidden",
    414: "uri_too_long",
    417: "expectation_failed",
    431: "headers_too_large",
    501: "not_implemented",
}
_MAX_MESSAGE = 500  # characters; it may quote the request


def write_error(client: socket.socket, status: int, reason: str, message: str) -> None:
    """Answer a request that can't be read (takes the place of ``gunicorn.util.write_error``)."""
    code = CODES.get(status, "internal_error")
    request_id = new_id("req")
    log.info("refused", extra={"status": status, "code": code, "requestId": request_id})
    shown = message.encode("utf-8", "backslashreplace").decode()[:_MAX_MESSAGE]
    if code == "internal_error":
        shown = "something went wrong here; the log has more"
    body = orjson.dumps(
        {
            "error": HTTPStatus(status).phrase,
            "message": shown or HTTPStatus(status).phrase,
            "code": code,
            "details": {},
        }
    )
    head = (
        f"HTTP/1.1 {status} {reason}\r\n"
        "Connection: close\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"X-Request-Id: {request_id}\r\n\r\n"
    )
    util.write_nonblock(client, head.encode("latin-1") + body)
