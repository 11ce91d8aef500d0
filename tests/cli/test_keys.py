from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.cli.keys import keys
from app.db import Database
from app.domain.errors import Unauthorized
from app.services.keys import authenticate


@pytest.fixture
def run(database_url: str) -> Any:
    """Runs ``metronome keys`` against the test's database."""

    def invoke(*arguments: str) -> Result:
        return CliRunner(env={"DATABASE_URL": database_url}).invoke(keys, arguments)

    return invoke


def test_a_key_is_created_listed_and_revoked(run: Any, db: Database) -> None:
    created = run("create", "--name", "laptop", "--user", "ada", "--organization", "acme", "--json")
    assert created.exit_code == 0, created.output
    key = json.loads(created.stdout)
    assert authenticate(db, key["key"]).organization_id == "acme"

    listed = json.loads(run("list", "--json").stdout)
    assert [(one["id"], one["name"], one["revokedAt"]) for one in listed] == [
        (key["id"], "laptop", None)
    ]
    table = run("list").stdout
    assert "laptop" in table
    assert key["key"] not in table + json.dumps(listed)

    revoked = run("revoke", key["id"])
    assert revoked.exit_code == 0
    assert key["id"] in revoked.stdout
    with pytest.raises(Unauthorized):
        authenticate(db, key["key"])


def test_the_secret_stands_alone_on_standard_output(run: Any, db: Database) -> None:
    created = run("create", "--name", "n", "--user", "ada")
    assert authenticate(db, created.stdout.strip()).organization_id == "default"


def test_mistakes_are_told_without_a_traceback(run: Any) -> None:
    unknown = run("revoke", "key_9")
    assert unknown.exit_code == 1
    assert "key_9" in unknown.output
    for nothing in ("", "  "):
        empty = run("create", "--name", nothing, "--user", "ada")
        assert empty.exit_code == 2
        assert "--name" in empty.output
    away = CliRunner(env={"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}).invoke(
        keys, ["list"]
    )
    assert away.exit_code == 1
    assert isinstance(away.exception, SystemExit)
    assert "database" in away.output


def test_a_key_has_the_role_that_it_was_given(run: Any, db: Database) -> None:
    created = run("create", "--name", "guard", "--user", "ada", "--role", "watchdog")
    assert "watchdog" in created.stderr
    assert authenticate(db, created.stdout.strip()).role == "watchdog"
    assert json.loads(run("list", "--json").stdout)[0]["role"] == "watchdog"
    assert "watchdog" in run("list").stdout
    unknown = run("create", "--name", "guard", "--user", "ada", "--role", "owner")
    assert unknown.exit_code == 2
    assert "--role" in unknown.output
