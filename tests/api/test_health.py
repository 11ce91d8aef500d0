from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from app import create_app
from app.config import Settings
from app.db import Database
from app.store import executors
from tests.api.conftest import Caller, refused


def seen(db: Database, seconds_ago: int = 0) -> None:
    connection = db.raw()
    executors.seen(connection, "executor_1", 4)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE executors SET seen_at = now() - %s * interval '1 s'", (seconds_ago,))
    connection.close()


def test_a_process_that_answers_is_alive(nobody: Caller) -> None:
    assert nobody.get("/healthz").json == {"status": "alive"}


def test_ready_with_an_executor(nobody: Caller, db: Database) -> None:
    seen(db)
    checks = {"database": "ok", "schema": "ok", "executor": "ok"}
    assert nobody.get("/readyz").json == {"status": "ready", "checks": checks}


def test_not_ready_without_an_executor(nobody: Caller, db: Database) -> None:
    for gone in (False, True):
        if gone:
            seen(db, seconds_ago=300)
        body = refused(nobody.get("/readyz"), 503, "not_ready")
        assert "executor" in body["message"]
        assert body["details"]["database"] == body["details"]["schema"] == "ok"


def test_not_ready_with_an_old_schema(nobody: Caller, db: Database) -> None:
    seen(db)
    with db.connect() as connection:
        (real,) = connection.execute(text("SELECT version_num FROM alembic_version")).scalars()
        try:
            connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
            body = refused(nobody.get("/readyz"), 503, "not_ready")
        finally:
            connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": real})
    assert "metronome migrate" in body["details"]["schema"]


@pytest.fixture
def unmigrated(fresh_database_url: str) -> Iterator[Caller]:
    app = create_app(Settings(database_url=fresh_database_url, listen=False))
    yield Caller(app, "mtr_" + "x" * 43)
    app.extensions["metronome"].db.close()


def test_not_ready_without_a_schema(unmigrated: Caller) -> None:
    body = refused(unmigrated.get("/readyz"), 503, "not_ready")
    assert body["details"]["schema"].startswith("is missing")
    assert unmigrated.get("/healthz").status_code == 200
