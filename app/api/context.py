"""What the views need of the process and of the request that they serve."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, current_app, g

from app.config import Settings
from app.db import Database
from app.domain.models import Actor
from app.services.notify import DueNotifier


@dataclass(frozen=True, slots=True)
class Shared:
    """What all requests of a process share. Nothing in it connects before it is used."""

    settings: Settings
    db: Database
    notifier: DueNotifier


def install(app: Flask, settings: Settings) -> None:
    """Give ``app`` its database: as many pooled connections as gunicorn has threads."""
    db = Database(settings.database_url or "", pool_size=settings.web_threads)
    app.extensions["metronome"] = Shared(settings, db, DueNotifier(db))


def shared() -> Shared:
    """What the current application shares."""
    found: Shared = current_app.extensions["metronome"]
    return found


def db() -> Database:
    """The database."""
    return shared().db


def actor() -> Actor:
    """Who sent the current request."""
    found: Actor = g.actor
    return found


def tell_due() -> None:
    """Wake an idle executor: a run was queued."""
    current = shared()
    if current.settings.listen:
        current.notifier.tell()
