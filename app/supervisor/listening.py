"""The API's listening socket, and the question whether the API behind it is ready."""

from __future__ import annotations

import errno
import http.client
import os
import socket

from app.config import Settings

BACKLOG = 2048

Listener = socket.socket


class ListenError(Exception):
    """Nothing can listen on HOST:PORT; the message says why."""


def open_listener(settings: Settings) -> Listener:
    """A socket that listens on the settings' host and port.

    :raises ListenError: if it can't, with what to do about it.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ListenError(f"HOST={settings.host} can't be resolved: {error.strerror}") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            other = settings.port + 1 if settings.port < 65535 else 8000
            raise ListenError(
                f"port {settings.port} is in use; take another one: PORT={other} make run"
            ) from None
        reason = os.strerror(error.errno or 0)
        raise ListenError(f"can't listen on {settings.address}: {reason}") from None
    return listener


def is_ready(settings: Settings) -> bool:
    """Whether /readyz answers 200."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    connection = http.client.HTTPConnection(host, settings.port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
