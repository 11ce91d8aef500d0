"""What has to be there before the parts start, how they are started, and the banner."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from pathlib import Path

from sqlalchemy.exc import OperationalError

from app.config import Settings, mask_url
from app.db import Database
from app.services.keys import ensure_bootstrap_key
from app.store import migrations


class SetupError(Exception):
    """The home directory or the database can't be used; the message says why."""


def prepare_home(home: Path) -> Path:
    """Create the home directory and return that of the logs."""
    directory = home / "log"
    try:
        # Others may pass (not list) what root creates: the user of the private PostgreSQL has to.
        home.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        directory.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise SetupError(f"can't use METRONOME_HOME={home}: {error.strerror}") from None
    return directory


def prepare_database(settings: Settings) -> str | None:
    """Migrate the database, see that it knows the bootstrap key, and return that key.

    None where somebody has revoked the key.
    """
    url = settings.database_url or ""
    try:
        migrations.upgrade(url)
    except OperationalError as error:
        raise SetupError(
            f"can't reach the database of DATABASE_URL={mask_url(url)}:\n{error.orig}"
        ) from None
    key = settings.bootstrap_key or _kept_key(settings.home)
    database = Database(url, pool_size=1)
    try:
        return key if ensure_bootstrap_key(database, key) else None
    finally:
        database.close()


def key_file(home: Path) -> Path:
    """Where the generated API key is kept."""
    return home / "api-key"


def _kept_key(home: Path) -> str:
    path = key_file(home)
    if path.exists() and (kept := path.read_text().strip()):
        return kept
    key = f"mtr_{secrets.token_urlsafe(30)}"
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{key}\n")
    new.rename(path)
    return key


def gunicorn(settings: Settings, listener: int) -> list[str]:
    """The command that serves the API on the inherited socket ``listener``."""
    return [
        *(sys.executable, "-m", "gunicorn", "wsgi:app", "--no-control-socket"),
        *("--config", "python:app.supervisor.gunicorn_conf", "--bind", f"fd://{listener}"),
        *("--worker-class", "gthread", "--workers", str(settings.web_workers)),
        *("--threads", str(settings.web_threads), "--log-level", settings.log_level),
        *("--graceful-timeout", str(max(1, round(settings.grace_seconds)))),
    ]


def executor() -> list[str]:
    """The command that runs an executor."""
    return [sys.executable, "-m", "app.cli", "executor"]


def banner(settings: Settings, api_key: str | None, hint: str | None) -> str:
    """What a user wants to know once everything runs."""
    url = f"http://{settings.address}"
    if api_key is None:
        key = "was revoked; `metronome keys create` makes another"
    else:
        key = "that of METRONOME_BOOTSTRAP_KEY" if settings.bootstrap_key else api_key
    return "\n".join(
        [
            "",
            "Metronome is running. Ctrl-C stops it.",
            "",
            f"  API      {url}",
            f"  API key  {key}",
            f"  Docs     {url}/docs",
            f"  Data     {settings.home}",
            "",
            "Try in another terminal:",
            "",
            f"  {_prefix(settings)}{hint or shlex.quote(sys.executable) + ' -m app.cli demo'}",
            "",
        ]
    )


def _prefix(settings: Settings) -> str:
    """The variables that the next command has to be given, as they stand before it in a shell."""
    default = Settings()
    changed = {
        "HOST": (settings.host, default.host),
        "PORT": (str(settings.port), str(default.port)),
        "METRONOME_HOME": (str(settings.home), str(default.home)),
    }
    told = [
        f"{name}={shlex.quote(value)} "
        for name, (value, usual) in changed.items()
        if value != usual
    ]
    return "".join(told)
