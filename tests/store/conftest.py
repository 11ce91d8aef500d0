"""The world of the store's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.db import Database
from tests.store.world import World


@pytest.fixture
def world(db: Database) -> Iterator[World]:
    """An empty database, to be filled with runs in any state."""
    made = World(db)
    yield made
    made.close()
