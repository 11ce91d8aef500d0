"""How gunicorn serves the API; it finds these settings by ``gunicorn.conf.py`` of the checkout.

It logs JSON lines, as everything else does. What it refuses itself, before the application sees it,
has the body of all errors. And it says so where it will not read the rest of a request.
"""

from __future__ import annotations

from typing import Any

from gunicorn import util
from gunicorn.glogging import Logger

from app.config import MAX_UNREAD_BYTES
from app.logs import JsonFormatter
from app.supervisor import refusals


class JsonLogger(Logger):  # type: ignore[misc]
    """gunicorn's logger with our format; no access log."""

    def setup(self, cfg: Any) -> None:
        """Set up the handlers from gunicorn's configuration."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(JsonFormatter())


def pre_request(worker: Any, request: Any) -> None:
    """Close the connection behind a request of which something may stay unread (a hook).

    Otherwise it is told to be kept, and is closed nevertheless: the next request on it is lost.
    """
    headers = dict(request.headers)
    length = headers.get("CONTENT-LENGTH", "0")
    if "TRANSFER-ENCODING" in headers or int(length) > MAX_UNREAD_BYTES:
        request.force_close()


logger_class = JsonLogger
limit_request_line = 8190  # bytes; gunicorn can't do more

# There is no setting for it: every worker calls it as a function of this module.
util.write_error = refusals.write_error
