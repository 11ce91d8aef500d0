"""What a refused request has sent and nobody has read: it is read, and thrown away.

A server that answers and closes while a body is still coming resets the connection: the client may
never see the answer, or finds the connection gone at its next request. gunicorn itself reads no
more than 64 KiB of what the application has left.
"""

from __future__ import annotations

import contextlib

from flask import Flask, Response, request

from app.config import MAX_UNREAD_BYTES

_PIECE = 65_536  # bytes


def install(app: Flask) -> None:
    """Have ``app`` read what is left of a body before it answers."""
    app.after_request(_read_on)


def _read_on(response: Response) -> Response:
    sent = request.content_length or "Transfer-Encoding" in request.headers
    # Where the server does not end the body itself, reading on would wait for ever.
    if sent and request.environ.get("wsgi.input_terminated"):
        body = request.environ["wsgi.input"]
        left = MAX_UNREAD_BYTES
        with contextlib.suppress(OSError, ValueError):  # the client is gone, or sends nonsense
            while left > 0 and (piece := body.read(min(_PIECE, left))):
                left -= len(piece)
    return response
