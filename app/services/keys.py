"""API keys: whom a request speaks for, and what its role lets it do."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from dataclasses import replace

from app.db import Database
from app.domain.errors import NotFound, Unauthorized
from app.domain.models import Actor, ApiKey
from app.ids import new_id
from app.store import keys

log = logging.getLogger(__name__)

PREFIX = "mtr_"
REMEMBERED = 10_000  # keys
SHOWN = 8  # characters of a secret that are kept to recognise it by
BOOTSTRAP_USER = "admin"
BOOTSTRAP_ORGANIZATION = "default"
BY_COMMAND = "cli"  # who acts, in the audit, where a person runs a command
BY_SERVER = "server"  # and where the server does it by its settings

_SECRET = re.compile(r"[!-~]{20,200}")


def create_key(
    db: Database, *, name: str, user_id: str, organization_id: str, role: str = "admin"
) -> tuple[ApiKey, str]:
    """A new key and its secret, ``mtr_`` and 43 characters, which is shown this once.

    ``role`` is one of ``roles.ROLES``.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    new = _new_key(secret, name, user_id, organization_id, role)
    with db.connect() as connection:
        key = keys.create(connection, new, by=BY_COMMAND)
    if key is None:
        raise AssertionError("two secrets of 256 random bits are the same")
    return key, secret


def ensure_bootstrap_key(db: Database, key: str) -> bool:
    """Make ``key`` valid for the user "admin" of the organization "default".

    False where somebody has revoked it: it stays revoked.
    """
    new = _new_key(key, "bootstrap", BOOTSTRAP_USER, BOOTSTRAP_ORGANIZATION, "admin")
    with db.connect() as connection:
        if keys.create(connection, new, by=BY_SERVER) or keys.find_actor(connection, new.sha256):
            return True
    log.warning("the bootstrap key was revoked: requests with it are refused")
    return False


def authenticate(db: Database, secret: str) -> Actor:
    """Whom ``secret`` stands for.

    Raises Unauthorized where no valid key has this secret.
    """
    if _SECRET.fullmatch(secret):
        hashed = _sha256(secret)
        actor = db.read(lambda connection: keys.find_actor(connection, hashed))
        if actor is not None:
            return actor
    raise Unauthorized("this API key is not valid", code="invalid_api_key")


class Keyring:
    """Whom the keys stand for that this process has seen to be valid.

    That never changes, but a key may be revoked at any time. So what is ``remembered`` has to be
    proven by the statements that are sent for that actor: see ``store/proof.py``.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: dict[bytes, Actor] = {}

    def remembered(self, secret: str) -> Actor | None:
        """Whom ``secret`` stood for when it was looked up; None where it was not."""
        return self._known.get(_sha256(secret))

    def look_up(self, secret: str) -> Actor:
        """As ``authenticate``; and remember it."""
        hashed = _sha256(secret)
        self._known.pop(hashed, None)
        actor = authenticate(self._db, secret)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[hashed] = replace(actor, remembered=True)
        return actor


def list_keys(db: Database) -> list[ApiKey]:
    """All keys, the oldest first, revoked ones as well."""
    return db.read(keys.every)


def revoke_key(db: Database, key_id: str) -> ApiKey:
    """Revoke a key from now on; one that is revoked stays as it is.

    Raises NotFound where there is no such key.
    """
    with db.connect() as connection:
        key = keys.revoke(connection, key_id, by=BY_COMMAND)
    if key is None:
        raise NotFound(f"there is no API key with the id {key_id}", code="key_not_found")
    return key


def _new_key(secret: str, name: str, user_id: str, organization_id: str, role: str) -> keys.NewKey:
    return keys.NewKey(
        id=new_id("key"),
        name=name,
        prefix=secret[:SHOWN],
        sha256=_sha256(secret),
        user_id=user_id,
        organization_id=organization_id,
        role=role,
    )


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
