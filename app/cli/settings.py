"""The settings of a command, or an error message and the end of it."""

from __future__ import annotations

from dataclasses import replace

import click

from app.config import Settings, SettingsError


def load() -> Settings:
    """The settings of the environment."""
    try:
        return Settings.from_env()
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


def check_connectors(settings: Settings) -> None:
    """End the command where the file of METRONOME_CONNECTORS can't be used."""
    from app.domain import connectors

    try:
        connectors.load(settings.connectors_file)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


def load_with_database() -> Settings:
    """The settings with a database: DATABASE_URL's, else that of a running `metronome run`."""
    from app.embedded import running_url

    settings = load()
    url = settings.database_url or running_url(settings.home)
    if url is None:
        raise click.ClickException(
            f"DATABASE_URL is not set, and no `metronome run` is running in {settings.home}"
        )
    return replace(settings, database_url=url)
