"""What the views need of the process and of the request that they serve."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from flask import Flask, current_app, g

from app.config import Settings
from app.db import Database
from app.domain.connectors import Connector, load
from app.domain.errors import MetronomeError
from app.domain.models import Actor
from app.services.keys import Keyring
from app.services.notify import DueNotifier
from app.services.places import Places
from app.store.concurrency import Group


@dataclass(frozen=True, slots=True)
class Shared:
    """What all requests of a process share. Nothing in it connects before it is used."""

    settings: Settings
    db: Database
    notifier: DueNotifier
    places: Places
    keyring: Keyring
    connectors: Mapping[str, Connector]  # by name; publishing looks whether they are there


def install(app: Flask, settings: Settings) -> None:
    """Give ``app`` its database: as many pooled connections as gunicorn has threads.

    Raises SettingsError where the file of connectors can't be used.
    """
    db = Database(settings.database_url or "", pool_size=settings.web_threads)
    connectors = load(settings.connectors_file)
    app.extensions["metronome"] = Shared(
        settings, db, DueNotifier(db), Places(db), Keyring(db), connectors
    )


def shared() -> Shared:
    """What the current application shares."""
    found: Shared = current_app.extensions["metronome"]
    return found


def db() -> Database:
    """The database."""
    return shared().db


def connectors() -> Mapping[str, Connector]:
    """The remote services that the deployer has named, by name."""
    return shared().connectors


def actor() -> Actor:
    """Who sent the current request."""
    found: Actor = g.actor
    return found


def admit(secret: str, check: Callable[[], None], *, remembered: bool) -> None:
    """Find out whom the key of the current request stands for, and ``check`` that it may be sent.

    With ``remembered`` it is enough that the key was valid once. Raises Unauthorized, or what
    ``check`` raises.
    """
    keyring = shared().keyring
    g.key = (secret, check)
    g.actor = (remembered and keyring.remembered(secret)) or keyring.look_up(secret)
    try:
        check()
    except MetronomeError:
        prove()
        raise


def prove() -> None:
    """Look up the key of the current request where it was only remembered, and check it again.

    Raises as ``admit`` does.
    """
    if "key" in g and g.actor.remembered:
        admit(*g.key, remembered=False)


def free_places(groups: Iterable[Group], by: Actor | None = None) -> None:
    """Have places in these groups given on, after the answer: that takes locks."""
    shared().places.free(groups, by)


def tell_due() -> None:
    """Wake an idle executor: a run was queued."""
    current = shared()
    if current.settings.listen:
        current.notifier.tell()
