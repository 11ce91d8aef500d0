"""The commands that run on the server's side."""

from __future__ import annotations

import sys

import click

from app.cli import settings as settings_


@click.command()
@click.option("--try", "hint", default=None, hidden=True, help="The command to name in the banner.")
def run(hint: str | None) -> None:
    """Start everything and keep it running until Ctrl-C or SIGTERM.

    That is: a private PostgreSQL (where DATABASE_URL is not set), the migrations, the API on
    HOST:PORT, and one executor. State and logs are kept in METRONOME_HOME.
    """
    settings = settings_.load()
    settings_.check_connectors(settings)
    from app import supervisor

    sys.exit(supervisor.run(settings, hint=hint))


@click.command()
def migrate() -> None:
    """Bring the schema of the database up to date."""
    settings = settings_.load_with_database()
    from sqlalchemy.exc import OperationalError

    from app.store.migrations import head, upgrade

    try:
        changed = upgrade(settings.database_url or "")
    except OperationalError as error:
        raise click.ClickException(f"can't reach the database: {error.orig}") from None
    click.echo(f"migrated to {head()}" if changed else f"already at {head()}")


@click.command()
def executor() -> None:
    """Run one executor until SIGTERM; start as many as you like, on any host."""
    settings = settings_.load_with_database()
    settings_.check_connectors(settings)
    from app import logs

    logs.configure(settings.log_level)
    from app.engine.executor import main

    sys.exit(main(settings))
