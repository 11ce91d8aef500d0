"""What Alembic runs: on the connection that it is given, or on that of DATABASE_URL."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from app.config import Settings
from app.db import normalized
from app.store.schema import metadata


def migrate(connection: Connection) -> None:
    """Run the migrations that Alembic was asked for."""
    context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    url = Settings.from_env().database_url
    if url is None:
        raise SystemExit("set DATABASE_URL to the database to work on")
    with create_engine(normalized(url), poolclass=NullPool).begin() as own:
        migrate(own)
