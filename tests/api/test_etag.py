"""Changes on condition that nobody else was faster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask

from app.api import etag
from app.db import Database
from tests.api import states
from tests.api.conftest import Caller, data, refused
from tests.processes import PATIENCE, wait_for

WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    " AND datname = current_database()"
)


def tag(api: Caller, path: str) -> str:
    return api.get(path).headers["ETag"]


def changes(path: str) -> list[tuple[str, str, Any]]:
    """Every request that changes a workflow on condition."""
    return [
        ("PATCH", path, {"name": "new"}),
        ("PATCH", path, {}),
        ("PATCH", f"{path}/owner", {"ownerUserId": "ada"}),
        ("DELETE", path, None),
    ]


@pytest.mark.parametrize("number", range(4))
def test_who_has_seen_an_older_state_changes_nothing(api: Caller, number: int) -> None:
    path = api.new_metronome()
    old = tag(api, path)
    api.patch(path, {"description": "somebody else's"})
    before = api.get(path)
    method, where, body = changes(path)[number]

    answer = refused(
        api.send(method, where, body, headers={"If-Match": old}), 412, "precondition_failed"
    )

    assert answer["details"] == {"etag": before.headers["ETag"]}
    assert api.get(path).get_data() == before.get_data()
    again = api.send(method, where, body, headers={"If-Match": before.headers["ETag"]})
    assert again.status_code == 200


def test_every_answer_with_a_workflow_has_its_tag(api: Caller) -> None:
    created = api.post("metronomes", {"name": "n"})
    path = f"metronomes/{data(created, 201)['id']}"
    changed = api.patch(path, {"name": "m"})
    given = api.patch(f"{path}/owner", {"ownerUserId": "ada"})
    for answer in (created, changed, given, api.get(path)):
        assert answer.headers["ETag"] == f'"{(answer.json or {})["data"]["revision"]}"'
    assert created.headers["ETag"] != changed.headers["ETag"] == given.headers["ETag"]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("{tag}", 200),
        ("*", 200),
        (" * ", 200),
        ('"0", {tag}', 200),
        ('{tag},"0"', 200),
        ('"a,b" , {tag}', 200),
        ("W/{tag}", 412),
        ('"0"', 412),
        ("1", 412),
        ("", 412),
        ('"01"', 412),
        ('"+1"', 412),
        ('" 1"', 412),
        ('"1" "2"', 412),
        ('"1', 412),
        ('"1", *', 412),
        ('"99999999999999999999999999"', 412),
        ('"999999999999999999"', 412),
        ('"\u0661"'.encode().decode("latin-1"), 412),
    ],
)
def test_only_a_strong_tag_that_is_current_matches(api: Caller, given: str, status: int) -> None:
    path = api.new_metronome()
    header = given.replace("{tag}", tag(api, path))
    answer = api.patch(path, {"name": "new"}, headers={"If-Match": header})
    assert answer.status_code == status, answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("{tag}", 304),
        ("W/{tag}", 304),
        ("*", 304),
        ('"0", W/{tag}', 304),
        ('"0"', 200),
        ("1", 200),
        ("", 200),
    ],
)
def test_what_the_caller_has_is_not_sent_again(api: Caller, given: str, status: int) -> None:
    path = api.new_metronome()
    current = tag(api, path)
    answer = api.get(path, headers={"If-None-Match": given.replace("{tag}", current)})
    assert answer.status_code == status
    assert answer.headers["ETag"] == current
    assert bool(answer.get_data()) == (status == 200)
    assert "X-Request-Id" in answer.headers


def test_a_condition_on_what_is_not_there_is_not_found(api: Caller, other: Caller) -> None:
    path = api.new_metronome()
    for method, where, body in changes(path):
        answer = other.send(method, where, body, headers={"If-Match": '"0"'})
        refused(answer, 404, "metronome_not_found")


def test_a_wrong_field_is_told_before_the_condition(api: Caller) -> None:
    path = api.new_metronome()
    refused(api.patch(path, {"name": ""}, headers={"If-Match": '"0"'}), 422, "invalid")


@contextmanager
def held(db: Database, path: str) -> Iterator[None]:
    """Hold the lock on a workflow's row."""
    with states.raw(db) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("SELECT id FROM metronomes WHERE id = %s FOR UPDATE", (path[11:],))
        assert cursor.fetchone()
        yield
        connection.commit()


def test_of_two_who_saw_the_same_state_one_is_refused(api: Caller, db: Database) -> None:
    path = api.new_metronome()
    seen = {"If-Match": tag(api, path)}
    answers: dict[str, int] = {}

    def change(name: str) -> None:
        answers[name] = api.patch(path, {"name": name}, headers=seen).status_code

    threads = [threading.Thread(target=change, args=(name,)) for name in ("one", "two")]
    with held(db, path):
        for thread in threads:
            thread.start()
        wait_for(lambda: states.count(db, WAITING) == 2, message="both wait for the row")
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(answers.values()) == [200, 412]
    assert answers[data(api.get(path))["name"]] == 200


def test_who_waited_for_a_change_is_refused_as_well(api: Caller, db: Database) -> None:
    path = api.new_metronome()
    seen = {"If-Match": tag(api, path)}
    answers: list[int] = []
    thread = threading.Thread(
        target=lambda: answers.append(api.delete(path, headers=seen).status_code)
    )
    with states.raw(db) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("UPDATE metronomes SET revision = revision + 1, name = 'other'")
        thread.start()
        wait_for(lambda: states.count(db, WAITING) == 1, message="it waits for the row")
        connection.commit()
    thread.join(PATIENCE)
    assert answers == [412]
    assert data(api.get(path))["status"] == "draft"


def test_a_thousand_tags_are_read_at_once(app: Flask) -> None:
    given = ", ".join(f'"{number}"' for number in range(1_000))
    with app.test_request_context(headers={"If-Match": given}):
        assert etag.expected() == tuple(range(1_000))
    with app.test_request_context(headers={"If-Match": '"' * 8_000}):
        assert etag.expected() == ()
