from __future__ import annotations

from app.db import Database
from app.store import idempotency


def reserve(
    db: Database, wanted: str, *, key: str = "k", scope: str = "metronomes", of: str = "acme"
) -> str:
    with db.connect() as connection:
        found, _ = idempotency.reserve(
            connection, of, scope, key, fingerprint=wanted.encode(), resource_id=wanted
        )
    return found


def test_a_key_stands_for_the_first_id(db: Database) -> None:
    assert reserve(db, "met_1") == "met_1"
    assert reserve(db, "met_2") == "met_1"
    assert reserve(db, "met_2", key="other") == "met_2"
    assert reserve(db, "ver_1", scope="versions:met_1") == "ver_1"
    assert reserve(db, "met_3", of="evil") == "met_3"


def test_the_fingerprint_is_that_of_the_first_request(db: Database) -> None:
    for wanted in (b"\x00\xff", b"second"):
        with db.connect() as connection:
            _, found = idempotency.reserve(
                connection, "acme", "s", "k", fingerprint=wanted, resource_id="met_1"
            )
        assert found == b"\x00\xff"


def test_what_is_too_old_is_forgotten_a_few_at_a_time(db: Database) -> None:
    for number in range(5):
        reserve(db, f"met_{number}", key=f"k{number}")
    with db.connect() as connection:
        connection.exec_driver_sql(
            "UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key <> 'k4'"
        )
    raw = db.raw()
    assert [idempotency.purge(raw, 3) for _ in range(3)] == [3, 1, 0]
    raw.close()
    assert reserve(db, "met_new", key="k4") == "met_4"
    assert reserve(db, "met_new", key="k0") == "met_new"


def test_a_key_that_somebody_takes_again_is_not_purged(db: Database) -> None:
    reserve(db, "met_1")
    with db.connect() as connection:
        connection.exec_driver_sql(
            "UPDATE idempotency_keys SET created_at = now() - interval '25 hours'"
        )
    holder, raw = db.raw(), db.raw()
    holder.autocommit = False
    with holder.cursor() as cursor:
        cursor.execute("SELECT key FROM idempotency_keys FOR UPDATE")
    assert idempotency.purge(raw, 10) == 0
    holder.commit()
    assert reserve(db, "met_2") == "met_2"
    assert idempotency.purge(raw, 10) == 0
    holder.close()
    raw.close()
