from __future__ import annotations

from app.db import Database
from app.domain.models import Actor
from app.store import keys
from app.store.keys import NewKey


def new(number: int) -> NewKey:
    return NewKey(f"key_{number}", f"name {number}", "mtr_", bytes([number]) * 32, "ada", "acme")


def test_a_key_is_found_by_its_hash(db: Database) -> None:
    with db.connect() as connection:
        key = keys.create(connection, new(1))
        assert key is not None
        assert (key.id, key.revoked_at) == ("key_1", None)
        assert keys.find_actor(connection, bytes([1]) * 32) == Actor("key_1", "ada", "acme")
        assert keys.find_actor(connection, bytes([2]) * 32) is None
        assert keys.find_actor(connection, b"") is None


def test_a_secret_is_stored_once(db: Database) -> None:
    with db.connect() as connection:
        keys.create(connection, new(1))
        again = NewKey("key_2", "other", "mtr_", bytes([1]) * 32, "eve", "evil")
        assert keys.create(connection, again) is None
        assert [key.id for key in keys.every(connection)] == ["key_1"]


def test_a_revoked_key_stands_for_nobody(db: Database) -> None:
    with db.connect() as connection:
        keys.create(connection, new(1))
        keys.create(connection, new(2))
        first = keys.revoke(connection, "key_1")
        assert first is not None
        assert first.revoked_at is not None
        assert keys.revoke(connection, "key_1") == first
        assert keys.find_actor(connection, bytes([1]) * 32) is None
        assert keys.find_actor(connection, bytes([2]) * 32) is not None
        assert keys.revoke(connection, "key_3") is None
        assert [key.id for key in keys.every(connection)] == ["key_1", "key_2"]
