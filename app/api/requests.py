"""Each request has an id and leaves one line in the log. Headers and bodies are never logged.

No answer is to be kept by anybody on its way: traces hold what is nobody else's business.
"""

from __future__ import annotations

import logging
import re
import time

from flask import Flask, Response, g, request

from app.ids import new_id

log = logging.getLogger(__name__)

HEADER = "X-Request-Id"
_GIVEN = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_QUIET = frozenset({"/healthz", "/readyz"})


def request_id() -> str:
    """The id of the current request: the caller's own, where it sent a plain one."""
    found: str = g.request_id
    return found


def install(app: Flask) -> None:
    """Number and log the requests of ``app``."""
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    given = request.headers.get(HEADER, "")
    g.request_id = given if _GIVEN.fullmatch(given) else new_id("req")
    g.began = time.perf_counter()


def _end(response: Response) -> Response:
    response.headers[HEADER] = request_id()
    response.headers.setdefault("Cache-Control", "no-store")
    args = request.view_args or {}
    log.log(
        logging.DEBUG if request.path in _QUIET else logging.INFO,
        "request",
        extra={
            "method": request.method,
            "path": request.path,
            "status": response.status_code,
            "ms": round((time.perf_counter() - g.began) * 1000, 1),
            "requestId": request_id(),
            **({"keyId": g.actor.key_id} if "actor" in g else {}),
            **({"metronomeId": args["metronome_id"]} if "metronome_id" in args else {}),
            **({"runId": args["run_id"]} if "run_id" in args else {}),
        },
    )
    return response
