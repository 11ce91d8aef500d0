"""What a workflow says of its runs: limits, and whether its triggers listen."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import text

from app.db import Database
from app.services import keys
from tests.api import states
from tests.api.conftest import Caller, data, refused
from tests.api.definitions import publishable
from tests.api.test_etag import WAITING, held
from tests.processes import PATIENCE, wait_for

LIMIT = {"maxConcurrentRuns": 2, "onLimit": "reject", "key": "trigger.input.customer"}


def test_a_limit_is_kept_as_it_was_given(api: Caller) -> None:
    path = api.new_metronome(concurrency=LIMIT)
    assert data(api.get(path))["concurrency"] == LIMIT
    assert data(api.patch(path, {"name": "new"}))["concurrency"] == LIMIT
    fewer = {"maxConcurrentRuns": 1}
    whole = {"maxConcurrentRuns": 1, "onLimit": "queue", "key": None}
    assert data(api.patch(path, {"concurrency": fewer}))["concurrency"] == whole
    assert data(api.patch(path, {"concurrency": None}))["concurrency"] is None
    assert data(api.get(path))["concurrency"] is None
    assert data(api.get(api.new_metronome()))["concurrency"] is None


def test_a_limit_is_a_change_of_its_own(api: Caller, db: Database) -> None:
    path = api.new_metronome()
    api.patch(path, {"concurrency": LIMIT})
    with db.connect() as connection:
        payload = connection.execute(
            text("SELECT payload FROM audit_events WHERE action = 'metronome.updated'")
        ).scalar_one()
    assert payload == {
        "changed": ["concurrency"],
        "before": {"concurrency": None},
        "after": {"concurrency": LIMIT},
    }
    before = data(api.get(path))
    assert data(api.patch(path, {"concurrency": LIMIT})) == before


@pytest.mark.parametrize(
    ("limit", "field"),
    [
        ({}, "concurrency.maxConcurrentRuns"),
        ({"maxConcurrentRuns": 0}, "concurrency.maxConcurrentRuns"),
        ({"maxConcurrentRuns": 10_001}, "concurrency.maxConcurrentRuns"),
        ({"maxConcurrentRuns": "1"}, "concurrency.maxConcurrentRuns"),
        ({"maxConcurrentRuns": 1.5}, "concurrency.maxConcurrentRuns"),
        ({"maxConcurrentRuns": True}, "concurrency.maxConcurrentRuns"),
        ({"maxConcurrentRuns": None}, "concurrency.maxConcurrentRuns"),
        ({"maxConcurrentRuns": 2**70}, "concurrency.maxConcurrentRuns"),
        ({"maxConcurrentRuns": 1, "onLimit": "drop"}, "concurrency.onLimit"),
        ({"maxConcurrentRuns": 1, "onLimit": None}, "concurrency.onLimit"),
        ({"maxConcurrentRuns": 1, "key": ""}, "concurrency.key"),
        ({"maxConcurrentRuns": 1, "key": 5}, "concurrency.key"),
        ({"maxConcurrentRuns": 1, "key": "a\0"}, "concurrency.key"),
        ({"maxConcurrentRuns": 1, "key": "x" * 1001}, "concurrency.key"),
        ({"maxConcurrentRuns": 1, "key": "trigger."}, "concurrency.key"),
        ({"maxConcurrentRuns": 1, "key": "steps.a.output.n"}, "concurrency.key"),
        ({"maxConcurrentRuns": 1, "key": "range(9)"}, "concurrency.key"),
        ({"maxConcurrentRuns": 1, "keys": "trigger.type"}, "concurrency.keys"),
        ([], "concurrency"),
        ("queue", "concurrency"),
        (1, "concurrency"),
    ],
)
def test_what_is_wrong_with_a_limit_is_named(api: Caller, limit: Any, field: str) -> None:
    path = api.new_metronome()
    for answer in (
        api.post("metronomes", {"name": "n", "concurrency": limit}),
        api.patch(path, {"concurrency": limit}),
    ):
        assert answer.status_code == 422, answer.get_data(as_text=True)
        named = (answer.json or {})["details"]
        assert [name for name in named if name.startswith(field)], named
    assert data(api.get(path))["concurrency"] is None


@pytest.mark.parametrize("key", ["trigger.type", "run.id", "'one'", "{{ trigger.input.a }}"])
def test_a_key_is_any_expression_over_the_trigger_and_the_run(api: Caller, key: str) -> None:
    limit = {"maxConcurrentRuns": 1, "key": key}
    assert data(api.get(api.new_metronome(concurrency=limit)))["concurrency"]["key"] == key


def waiting(api: Caller, path: str) -> list[bool]:
    """Whether the runs of a workflow have places, the oldest first."""
    return [run["admitted"] for run in data(api.get(f"{path}/runs"))][::-1]


def test_a_higher_limit_gives_places_to_those_that_wait(api: Caller) -> None:
    path = api.new_metronome(concurrency={"maxConcurrentRuns": 1})
    for _ in range(4):
        api.new_run(path)
    assert waiting(api, path) == [True, False, False, False]
    api.patch(path, {"concurrency": {"maxConcurrentRuns": 2}})
    assert waiting(api, path) == [True, True, False, False]
    api.patch(path, {"concurrency": None})
    assert waiting(api, path) == [True] * 4


# -- triggers


SCHEDULE = {
    "id": "start",
    "kind": "trigger",
    "subtype": "periodic",
    "config": {"scheduleType": "interval", "intervalSeconds": 3600},
}


def published(api: Caller) -> str:
    """The path of a workflow whose schedule listens."""
    path = api.new_metronome(publishable(trigger=SCHEDULE))
    assert data(api.post(f"{path}/publish", {"active": True}))["status"] == "active"
    return path


def listens(db: Database) -> list[tuple[str, bool, bool]]:
    """Owner, whether it is paused, and whether it is due, of each trigger."""
    with db.connect() as connection:
        found = connection.execute(
            text("SELECT user_id, paused, next_due_at IS NOT NULL FROM triggers")
        )
        return [(row[0], row[1], row[2]) for row in found]


@pytest.mark.parametrize("status", ["paused", "archived"])
def test_triggers_listen_while_the_workflow_is_active(
    api: Caller, db: Database, status: str
) -> None:
    path = published(api)
    assert listens(db) == [("ada", False, True)]
    api.patch(path, {"status": status})
    assert listens(db) == [("ada", True, False)]
    api.patch(path, {"name": "new"})
    assert listens(db) == [("ada", True, False)]
    resumed = data(api.patch(path, {"status": "active"}))
    assert resumed["publishedVersionNumber"] == 0
    assert listens(db) == [("ada", False, True)]


@pytest.mark.parametrize(
    ("status", "then"), [("active", "active"), ("paused", "paused"), ("archived", "paused")]
)
def test_what_is_published_is_no_draft(api: Caller, db: Database, status: str, then: str) -> None:
    path = published(api)
    data(api.patch(path, {"status": status}))
    saved = data(api.patch(path, {"status": "draft", "name": "new"}))
    assert (saved["status"], saved["name"]) == (then, "new")
    assert saved["publishedVersionNumber"] == 0
    assert listens(db) == [("ada", then != "active", then == "active")]
    assert data(api.post(f"{path}/unpublish", {}))["status"] == "draft"


def test_triggers_that_were_lost_are_back_once_the_workflow_is_resumed(
    api: Caller, db: Database
) -> None:
    path = published(api)
    for status in ("paused", "active"):  # also where it was active all the time
        data(api.patch(path, {"status": status}))
        with db.connect() as connection:
            connection.execute(text("DELETE FROM triggers"))
        data(api.patch(path, {"status": "active"}))
        assert listens(db) == [("ada", False, True)]


def test_triggers_of_what_is_deleted_listen_no_more(api: Caller, db: Database) -> None:
    path = published(api)
    api.delete(path)
    assert listens(db) == [("ada", True, False)]


def test_triggers_go_to_the_new_owner(api: Caller, db: Database) -> None:
    keys.create_key(db, name="k", user_id="bob", organization_id="acme")
    path = published(api)
    api.patch(f"{path}/owner", {"ownerUserId": "bob"})
    assert listens(db) == [("bob", False, True)]


def test_a_refused_change_leaves_the_triggers(api: Caller, db: Database) -> None:
    path = published(api)
    refused(
        api.patch(path, {"status": "paused"}, headers={"If-Match": '"0"'}),
        412,
        "precondition_failed",
    )
    assert listens(db) == [("ada", False, True)]


def test_a_workflow_without_a_version_can_be_active(api: Caller, db: Database) -> None:
    path = api.new_metronome(publishable(trigger=SCHEDULE), status="active")
    assert data(api.patch(path, {"status": "paused"}))["status"] == "paused"
    assert data(api.patch(path, {"status": "active"}))["status"] == "active"
    assert listens(db) == []


def test_what_was_published_meanwhile_is_what_is_resumed(api: Caller, db: Database) -> None:
    path = published(api)
    version = data(api.get(path))["publishedVersionId"]
    api.patch(path, {"status": "paused"})
    answers: list[int] = []
    thread = threading.Thread(
        target=lambda: answers.append(api.patch(path, {"status": "active"}).status_code)
    )
    with states.raw(db) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("SELECT id FROM metronomes WHERE id = %s FOR UPDATE", (path[11:],))
        thread.start()
        wait_for(lambda: states.count(db, WAITING) == 1, message="it waits for the row")
        # Another version is published and paused, while the first one's triggers were computed.
        cursor.execute(
            "INSERT INTO versions SELECT 'ver_new', organization_id, metronome_id, 1, description,"
            " 'saved', definition, 0, node_count, edge_count FROM versions WHERE id = %s",
            (version,),
        )
        cursor.execute("UPDATE metronomes SET published_version_id = 'ver_new'")
        cursor.execute("UPDATE triggers SET version_id = 'ver_new'")
        connection.commit()
    thread.join(PATIENCE)
    assert answers == [200]
    assert listens(db) == [("ada", False, True)]


def test_two_changes_at_once_are_both_made(api: Caller, db: Database) -> None:
    path = published(api)
    bodies: list[dict[str, Any]] = [
        {"name": "new"},
        {"description": "d"},
        {"status": "paused"},
        {"concurrency": LIMIT},
    ]
    threads = [threading.Thread(target=api.patch, args=(path, body)) for body in bodies]
    revision = data(api.get(path))["revision"]
    with held(db, path):
        for thread in threads:
            thread.start()
        wait_for(lambda: states.count(db, WAITING) == len(bodies), message="all wait")
    for thread in threads:
        thread.join(PATIENCE)
    after = data(api.get(path))
    for body in bodies:
        assert after.items() >= body.items()
    assert after["revision"] == revision + len(bodies)
    assert listens(db) == [("ada", True, False)]
