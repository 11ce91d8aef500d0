"""Executors forget old idempotency keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from app.db import Database
from app.engine import monitor
from tests.engine.conftest import Lab


def _keys(db: Database) -> list[str]:
    with db.connect() as connection:
        return list(connection.execute(text("SELECT key FROM idempotency_keys")).scalars())


def test_keys_of_yesterday_are_forgotten_a_few_at_a_time(
    lab: Lab, wait_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with lab.db.connect() as connection:
        connection.execute(
            text("""
            INSERT INTO idempotency_keys
                (organization_id, scope, key, fingerprint, resource_id, created_at)
            SELECT 'o', 's', hours || ' hours', '', 'r', now() - hours * interval '1 hour'
            FROM generate_series(21, 27) AS hours
            """)
        )
    monkeypatch.setattr(monitor, "PURGE_SECONDS", 0.0)
    monkeypatch.setattr(monitor, "PURGE_LIMIT", 2)
    monkeypatch.setattr(monitor, "RETRY_SECONDS", 0.01)

    lab.start()

    kept = ["21 hours", "22 hours", "23 hours"]
    wait_for(lambda: sorted(_keys(lab.db)) == kept)
