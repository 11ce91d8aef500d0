from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text

from app.db import Database
from app.domain.models import Actor, ApiKey
from app.store import keys
from app.store.keys import NewKey
from tests.processes import wait_for


def new(number: int) -> NewKey:
    return NewKey(f"key_{number}", f"name {number}", "mtr_", bytes([number]) * 32, "ada", "acme")


def test_a_key_is_found_by_its_hash(db: Database) -> None:
    with db.connect() as connection:
        key = keys.create(connection, new(1), by="cli")
        assert key is not None
        assert (key.id, key.revoked_at) == ("key_1", None)
        assert keys.find_actor(connection, bytes([1]) * 32) == Actor("key_1", "ada", "acme")
        assert keys.find_actor(connection, bytes([2]) * 32) is None
        assert keys.find_actor(connection, b"") is None


def test_a_secret_is_stored_once(db: Database) -> None:
    with db.connect() as connection:
        keys.create(connection, new(1), by="cli")
        again = NewKey("key_2", "other", "mtr_", bytes([1]) * 32, "eve", "evil")
        assert keys.create(connection, again, by="cli") is None
        assert [key.id for key in keys.every(connection)] == ["key_1"]


def test_a_revoked_key_stands_for_nobody(db: Database) -> None:
    with db.connect() as connection:
        keys.create(connection, new(1), by="cli")
        keys.create(connection, new(2), by="cli")
        first = keys.revoke(connection, "key_1", by="cli")
        assert first is not None
        assert first.revoked_at is not None
        assert keys.revoke(connection, "key_1", by="cli") == first
        assert keys.find_actor(connection, bytes([1]) * 32) is None
        assert keys.find_actor(connection, bytes([2]) * 32) is not None
        assert keys.revoke(connection, "key_3", by="cli") is None
        assert [key.id for key in keys.every(connection)] == ["key_1", "key_2"]


def test_making_and_revoking_a_key_is_audited_once(db: Database) -> None:
    with db.connect() as connection:
        keys.create(connection, new(1), by="server")
        keys.create(connection, new(1), by="cli")
        keys.revoke(connection, "key_1", by="cli")
        keys.revoke(connection, "key_1", by="cli")
        found = connection.execute(
            text(
                "SELECT action, actor_key_id, organization_id, user_id, metronome_id,"
                " payload ->> 'keyId', payload ->> 'role' FROM audit_events ORDER BY id"
            )
        ).all()
    assert [tuple(row) for row in found] == [
        ("key.created", "server", "acme", "ada", None, "key_1", "admin"),
        ("key.revoked", "cli", "acme", "ada", None, "key_1", "admin"),
    ]


def test_of_two_revocations_at_once_one_is_audited(db: Database) -> None:
    with db.connect() as connection:
        keys.create(connection, new(1), by="cli")

    def revoke(_: int) -> ApiKey | None:
        with db.connect() as connection:
            return keys.revoke(connection, "key_1", by="cli")

    with db.connect() as holder, ThreadPoolExecutor(2) as pool:
        holder.execute(text("BEGIN; SELECT FROM api_keys WHERE id = 'key_1' FOR UPDATE"))
        both = [pool.submit(revoke, number) for number in range(2)]
        wait_for(lambda: _waiting(db) == 2, message="both wait for the row")
        holder.execute(text("COMMIT"))
        one, two = (future.result() for future in both)
    assert one is not None
    assert one == two
    with db.connect() as connection:
        query = "SELECT count(*) FROM audit_events WHERE action = 'key.revoked'"
        assert connection.execute(text(query)).scalar_one() == 1


def _waiting(db: Database) -> int:
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with db.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())
