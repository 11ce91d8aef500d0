"""How gunicorn logs under the supervisor: JSON lines, as everything else."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger

from app.logs import JsonFormatter


class JsonLogger(Logger):  # type: ignore[misc]
    """gunicorn's logger with our format; no access log."""

    def setup(self, cfg: Any) -> None:
        """Set up the handlers from gunicorn's configuration."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(JsonFormatter())


logger_class = JsonLogger
