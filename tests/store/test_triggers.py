"""The rows that listen follow their workflow, whatever becomes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from sqlalchemy import text

from app.db import Database
from app.domain.trigger_rows import NewTrigger
from app.store import triggers
from app.store.leases import DUE_CHANNEL

DUE = datetime(2031, 5, 1, 12, tzinfo=UTC)
_IDS = {"metronome_id": "met_1", "organization_id": "org_1"}

_WORKFLOW = text("""
INSERT INTO metronomes (id, organization_id, user_id, name, status, definition,
    published_version_id)
VALUES ('met_1', 'org_1', 'ada', 'test', 'active', '{}', :version_id)
""")
_FOLLOW = f"""
{triggers.LOCK};
WITH changed AS (
    UPDATE metronomes SET status = :status, user_id = :user_id WHERE id = :metronome_id
    RETURNING id, user_id, status
), followed AS ({triggers.follows("changed")})
SELECT count(*) FROM changed
"""


def trigger(node_id: str, **changes: Any) -> NewTrigger:
    """A trigger node; a schedule where it has a time at which it is due."""
    kind = "periodic" if "next_due_at" in changes else "function"
    values: dict[str, Any] = {"trigger_type": kind, "slug": None, "config": {}, "next_due_at": None}
    return NewTrigger(node_id, **{**values, **changes})


def publish(db: Database, version_id: str | None, *found: NewTrigger) -> None:
    """Publish, as publishing does it."""
    change = "UPDATE metronomes SET published_version_id = :trigger_version_id"
    with db.connect() as connection:
        values = _IDS | triggers.parameters(version_id, found)
        connection.execute(text("; ".join([triggers.LOCK, change, *triggers.SYNC])), values)


def follow(db: Database, status: str, *given: NewTrigger, user_id: str = "ada") -> None:
    """Give the workflow another status and owner; ``given`` is what ver_1 listens for."""
    values = triggers.parameters("ver_1" if given else None, given)
    with db.connect() as connection:
        connection.execute(text(_FOLLOW), _IDS | values | {"status": status, "user_id": user_id})


def stored(db: Database) -> dict[str, dict[str, Any]]:
    """The rows by their node."""
    with db.connect() as connection:
        found = connection.execute(text("SELECT * FROM triggers")).mappings()
        return {row["node_id"]: dict(row) for row in found}


@pytest.fixture
def workflow(db: Database) -> Database:
    """A database with one active workflow."""
    with db.connect() as connection:
        connection.execute(_WORKFLOW, {"version_id": None})
    return db


def test_publishing_makes_what_is_published_listen(workflow: Database) -> None:
    publish(workflow, "ver_1", trigger("a", slug="go"), trigger("b", next_due_at=DUE))
    rows = stored(workflow)
    assert rows.keys() == {"a", "b"}
    assert rows["a"]["slug"] == "go"
    assert rows["b"]["next_due_at"] == DUE
    assert {row["version_id"] for row in rows.values()} == {"ver_1"}
    assert {row["user_id"] for row in rows.values()} == {"ada"}


def test_publishing_another_version_replaces_what_listened(workflow: Database) -> None:
    publish(workflow, "ver_1", trigger("a", slug="one"), trigger("b", slug="two"))
    publish(workflow, "ver_2", trigger("b", slug="one"), trigger("c", slug="two"))
    rows = stored(workflow)
    assert {node: row["slug"] for node, row in rows.items()} == {"b": "one", "c": "two"}
    assert {row["version_id"] for row in rows.values()} == {"ver_2"}


def test_slugs_can_change_places(workflow: Database) -> None:
    publish(workflow, "ver_1", trigger("a", slug="one"), trigger("b", slug="two"))
    publish(workflow, "ver_2", trigger("a", slug="two"), trigger("b", slug="one"))
    assert {node: row["slug"] for node, row in stored(workflow).items()} == {"a": "two", "b": "one"}


def test_unpublishing_leaves_nothing_that_listens(workflow: Database) -> None:
    publish(workflow, "ver_1", trigger("a", slug="one"))
    publish(workflow, None)
    assert stored(workflow) == {}


def test_what_another_version_listens_for_changes_nothing(workflow: Database) -> None:
    publish(workflow, "ver_1", trigger("a", slug="one"))
    with workflow.connect() as connection:
        values = _IDS | triggers.parameters("ver_0", [trigger("z", slug="old")])
        connection.execute(text("; ".join([triggers.LOCK, *triggers.SYNC])), values)
    assert stored(workflow).keys() == {"a"}


def test_a_schedule_that_stays_keeps_its_time(workflow: Database) -> None:
    later = DUE + timedelta(hours=1)
    publish(workflow, "ver_1", trigger("a", next_due_at=DUE, config={"n": 1}))
    first = stored(workflow)["a"]
    publish(workflow, "ver_2", trigger("a", next_due_at=later, config={"n": 1}))
    assert stored(workflow)["a"] == first | {"version_id": "ver_2"}
    publish(workflow, "ver_3", trigger("a", next_due_at=later, config={"n": 2}))
    assert stored(workflow)["a"]["next_due_at"] == later


@pytest.mark.parametrize("status", ["paused", "archived", "draft"])
def test_what_is_not_active_is_paused_and_never_due(workflow: Database, status: str) -> None:
    publish(workflow, "ver_1", trigger("a", next_due_at=DUE))
    follow(workflow, status)
    row = stored(workflow)["a"]
    assert row["paused"]
    assert row["next_due_at"] is None


def test_a_workflow_that_is_active_again_is_due_from_then_on(workflow: Database) -> None:
    first, again = trigger("a", next_due_at=DUE), DUE + timedelta(days=1)
    publish(workflow, "ver_1", first, trigger("b", slug="x"))
    follow(workflow, "paused")
    follow(workflow, "active", trigger("a", next_due_at=again))
    rows = stored(workflow)
    assert rows["a"]["next_due_at"] == again
    assert not rows["a"]["paused"]
    assert not rows["b"]["paused"]


def test_a_new_owner_is_that_of_the_triggers_and_moves_no_schedule(workflow: Database) -> None:
    publish(workflow, "ver_1", trigger("a", next_due_at=DUE))
    before = stored(workflow)["a"]
    follow(workflow, "active", user_id="bob")
    assert stored(workflow)["a"] == before | {"user_id": "bob"}


def test_publishing_a_paused_workflow_leaves_it_paused(workflow: Database) -> None:
    follow(workflow, "paused")
    publish(workflow, "ver_1", trigger("a", next_due_at=DUE))
    row = stored(workflow)["a"]
    assert row["paused"]
    assert row["next_due_at"] is None


def test_executors_hear_of_new_schedules(workflow: Database, database_url: str) -> None:
    listening = psycopg2.connect(database_url)
    listening.autocommit = True
    try:
        cursor = listening.cursor()
        cursor.execute(f"LISTEN {DUE_CHANNEL}")
        publish(workflow, "ver_1", trigger("a", next_due_at=DUE))
        follow(workflow, "paused")
        follow(workflow, "active", trigger("a", next_due_at=DUE))
        cursor.execute("SELECT 1")
        assert [one.payload for one in listening.notifies] == ["schedule", "schedule"]
    finally:
        listening.close()


def test_listeners_are_those_of_the_type_and_the_organization(workflow: Database) -> None:
    publish(workflow, "ver_1", trigger("a", trigger_type="email", config={"x": 1}), trigger("b"))
    follow(workflow, "paused")
    with workflow.connect() as connection:
        found = triggers.listeners(connection, "org_1", "email")
        assert triggers.listeners(connection, "org_2", "email") == []
    assert [(one.node_id, one.config, one.paused) for one in found] == [("a", {"x": 1}, True)]
    assert found[0].metronome_status == "paused"


def test_a_slug_is_looked_up_in_its_own_workflow(workflow: Database) -> None:
    publish(workflow, "ver_1", trigger("a", slug="go"))
    with workflow.connect() as connection:
        found = triggers.called(connection, "org_1", "met_1", "go")
        assert found is not None
        assert found.listener is not None
        assert found.listener.node_id == "a"
        missing = triggers.called(connection, "org_1", "met_1", "stop")
        assert missing == triggers.Called("active", is_published=True, listener=None)
        assert triggers.called(connection, "org_2", "met_1", "go") is None
