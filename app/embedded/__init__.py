"""A private PostgreSQL, for those who have none: its data, socket and logs are in one directory."""

from __future__ import annotations

from app.embedded.binaries import EmbeddedError
from app.embedded.server import EmbeddedPostgres, running_url

__all__ = ["EmbeddedError", "EmbeddedPostgres", "running_url"]
