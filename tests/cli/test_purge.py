"""``metronome purge``: old runs are deleted by command."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from app.cli.purge import purge
from app.db import Database
from app.services import purges
from app.services.purges import Purged


def invoke(database_url: str, *arguments: str) -> Result:
    """Run the command."""
    return CliRunner(env={"DATABASE_URL": database_url}).invoke(purge, arguments)


def test_what_was_deleted_is_told(database_url: str) -> None:
    assert invoke(database_url, "--days", "30").stdout == (
        "deleted 0 runs, 0 audit events, 0 trigger events\n"
    )
    told = json.loads(invoke(database_url, "--days", "30", "--json").stdout)
    assert told == {"runs": 0, "auditEvents": 0, "triggerEvents": 0}


def test_the_age_is_said_and_not_guessed(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def ask(_: Database, *, days: int) -> Purged:
        asked.append(days)
        return Purged(1, 2, 3)

    monkeypatch.setattr(purges, "purge", ask)
    for wrong in ((), ("--days", "0"), ("--days", "-1"), ("--days", "x")):
        assert invoke(database_url, *wrong).exit_code == 2
    assert "1 runs, 2 audit events, 3 trigger" in invoke(database_url, "--days", "7").stdout
    assert asked == [7]
