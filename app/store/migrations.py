"""Bring the database's schema up to date, and tell whether it is.

Alembic takes 0.6 s to import, so only ``upgrade`` does, and only where there is something to do.
A migration's file name starts with its revision, and the revisions sort in the order in which they
are applied: ``0001_initial.py``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from app.db import normalized

DIRECTORY = Path(__file__).resolve().parents[2] / "migrations"

_HAS_VERSION_TABLE = text("SELECT to_regclass('alembic_version') IS NOT NULL")
_CURRENT = text("SELECT version_num FROM alembic_version")
# Two processes that migrate at the same time: the second waits, and finds nothing left to do.
_LOCK = text("SELECT pg_advisory_xact_lock(7310843721)")


@cache
def head() -> str:
    """The revision that this code needs.

    :raises FileNotFoundError: if the migrations are not next to the package.
    """
    names = sorted(path.name for path in (DIRECTORY / "versions").glob("[0-9]*_*.py"))
    if not names:
        raise FileNotFoundError(f"there are no migrations in {DIRECTORY / 'versions'}")
    return names[-1].partition("_")[0]


def current(connection: Connection) -> str | None:
    """The revision that the database has; None for one that was never migrated."""
    if not connection.execute(_HAS_VERSION_TABLE).scalar_one():
        return None
    version: str | None = connection.execute(_CURRENT).scalar_one_or_none()
    return version


def upgrade(url: str) -> bool:
    """Migrate the database at ``url`` to ``head()`` in one transaction; False if it was there.

    :raises sqlalchemy.exc.OperationalError: if the database can't be reached.
    """
    engine = create_engine(
        normalized(url), poolclass=NullPool, connect_args={"connect_timeout": 10}
    )
    with engine.connect() as connection:
        if current(connection) == head():
            return False
    from alembic import command
    from alembic.config import Config

    with engine.begin() as connection:
        connection.execute(_LOCK)
        if current(connection) == head():
            return False
        config = Config()
        config.set_main_option("script_location", str(DIRECTORY).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return True
