"""The database, for commands that need no server, so that a first key can be made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from app.cli import settings
from app.db import Database
from app.domain.errors import MetronomeError


@contextmanager
def database() -> Iterator[Database]:
    """The database; what is refused becomes a message for the person at the terminal."""
    from sqlalchemy.exc import DBAPIError

    db = Database(settings.load_with_database().database_url or "")
    try:
        yield db
    except MetronomeError as error:
        raise click.ClickException(error.message) from None
    except DBAPIError as error:
        raise click.ClickException(f"the database refused: {error.orig}") from None
    finally:
        db.close()
