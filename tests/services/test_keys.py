from __future__ import annotations

import hashlib
import re

import pytest

from app.db import Database
from app.domain.errors import NotFound, Unauthorized
from app.services import keys


def test_a_secret_is_shown_once_and_only_its_hash_is_stored(db: Database) -> None:
    key, secret = keys.create_key(db, name="k", user_id="ada", organization_id="acme")
    assert re.fullmatch(r"mtr_[A-Za-z0-9_-]{43}", secret)
    assert key.prefix == secret[:8]
    with db.connect() as connection:
        (row,) = connection.exec_driver_sql("SELECT * FROM api_keys").all()
    assert hashlib.sha256(secret.encode()).digest() in {
        bytes(value) for value in row if isinstance(value, memoryview | bytes)
    }
    assert secret not in str(tuple(row))
    assert keys.list_keys(db) == [key]


def test_a_secret_stands_for_its_user_and_organization(db: Database) -> None:
    key, secret = keys.create_key(db, name="k", user_id="ada", organization_id="acme")
    actor = keys.authenticate(db, secret)
    assert (actor.key_id, actor.user_id, actor.organization_id) == (key.id, "ada", "acme")


@pytest.mark.parametrize("secret", ["", "x", "mtr_" + "x" * 43, "x" * 10_000, "\0" * 30, "é" * 30])
def test_other_secrets_stand_for_nobody(db: Database, secret: str) -> None:
    keys.create_key(db, name="k", user_id="ada", organization_id="acme")
    with pytest.raises(Unauthorized):
        keys.authenticate(db, secret)


def test_revoking_an_unknown_key_says_so(db: Database) -> None:
    with pytest.raises(NotFound, match="key_9"):
        keys.revoke_key(db, "key_9")


def test_the_bootstrap_key_is_made_once(db: Database) -> None:
    secret = "a-fixed-key-of-my-own"
    assert keys.ensure_bootstrap_key(db, secret)
    assert keys.ensure_bootstrap_key(db, secret)
    (key,) = keys.list_keys(db)
    actor = keys.authenticate(db, secret)
    assert (actor.user_id, actor.organization_id) == ("admin", "default")
    keys.revoke_key(db, key.id)
    assert not keys.ensure_bootstrap_key(db, secret)
    with pytest.raises(Unauthorized):
        keys.authenticate(db, secret)
