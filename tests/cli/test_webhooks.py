"""``metronome webhooks``: the secrets of those who deliver without an API key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from app.cli.webhooks import webhooks
from app.db import Database
from app.domain.errors import Unauthorized
from app.services.webhooks import Proof, authenticate


@pytest.fixture
def run(database_url: str) -> Any:
    """Runs ``metronome webhooks`` against the test's database."""

    def invoke(*arguments: str) -> Result:
        return CliRunner(env={"DATABASE_URL": database_url}).invoke(webhooks, arguments)

    return invoke


def whose(db: Database, secret: str) -> str:
    """The organization that a secret stands for."""
    return authenticate(db, b"", Proof(None, secret, None)).organization_id


def test_its_path_is_told_with_the_name_of_the_webhook(run: Any) -> None:
    told = run("create", "--name", "github").stderr
    assert f"?webhook={told.split()[0]}" in told
    assert "Use it with ?webhook=" in told


def test_a_webhook_is_created_listed_and_revoked(run: Any, db: Database) -> None:
    created = run("create", "--name", "github", "--organization", "acme", "--json")
    assert created.exit_code == 0, created.output
    made = json.loads(created.stdout)
    assert made["path"].endswith(f"?webhook={made['id']}")
    assert whose(db, made["secret"]) == "acme"
    listed = json.loads(run("list", "--json").stdout)
    assert [(one["id"], one["revokedAt"]) for one in listed] == [(made["id"], None)]
    assert made["secret"] not in run("list").stdout + json.dumps(listed)
    assert json.loads(run("list", "--organization", "other", "--json").stdout) == []
    assert run("revoke", made["id"]).exit_code == 0
    assert run("revoke", made["id"]).exit_code == 0
    with pytest.raises(Unauthorized):
        whose(db, made["secret"])
    with db.connect() as connection:
        actions = connection.execute(text("SELECT action FROM audit_events ORDER BY id")).scalars()
        assert list(actions) == ["webhook.created", "webhook.revoked"]


def test_a_secret_can_be_given(run: Any, db: Database) -> None:
    created = run("create", "--name", "n", "--secret", "both-sides-have-this-one")
    assert created.stdout.strip() == "both-sides-have-this-one"
    assert whose(db, "both-sides-have-this-one") == "default"


def test_mistakes_are_told_without_a_traceback(run: Any) -> None:
    for arguments, code, told in (
        (("revoke", "whk_9"), 1, "whk_9"),
        (("create", "--name", ""), 2, "--name"),
        (("create", "--name", "  "), 2, "--name"),
        (("create", "--name", "n", "--secret", "short"), 1, "16 to 200"),
    ):
        result = run(*arguments)
        assert result.exit_code == code
        assert told in result.output
