"""Metronome: workflow runs over HTTP, on PostgreSQL, that stop when they are cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.config import Settings


def create_app(settings: Settings) -> Flask:
    """The HTTP API as a WSGI application; it opens no connection before the first request.

    Raises SettingsError where ``settings`` names no database.
    """
    # Not at the top: whoever imports a module of this package would import Flask.
    from app.api import build

    return build(settings)
