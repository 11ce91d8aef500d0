"""Which workflows are listed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from app.db import Database
from tests.api.conftest import Caller, data, refused


def names(api: Caller, **query: Any) -> list[str]:
    return [one["name"] for one in data(api.get("metronomes", query_string=query))]


def test_they_are_found_by_a_part_of_the_name(api: Caller, other: Caller) -> None:
    for name in ("Nightly report", "100%_done", "back\\slash", "NIGHTLY backup"):
        api.new_metronome(name=name)
    other.new_metronome(name="nightly of others")
    assert names(api, q="nightly") == ["NIGHTLY backup", "Nightly report"]
    assert names(api, q="REPORT") == ["Nightly report"]
    assert names(api, q="%") == ["100%_done"]
    assert names(api, q="_") == ["100%_done"]
    assert names(api, q="\\") == ["back\\slash"]
    assert names(api, q="none") == []
    assert len(names(api, q="")) == 4
    for q in ("\0", "x" * 201):
        refused(api.get("metronomes", query_string={"q": q}), 422, "invalid")


def test_they_are_found_by_the_time_of_their_creation(api: Caller, db: Database) -> None:
    for name in ("a", "b", "c"):
        path = api.new_metronome(name=name)
        with db.connect() as connection:
            connection.execute(
                text("UPDATE metronomes SET created_at = :at WHERE id = :id"),
                {"at": data(api.get(path))["createdAt"], "id": path[11:]},
            )
    a, b, c = (data(api.get("metronomes"))[number]["createdAt"] for number in (2, 1, 0))
    assert a < b < c
    assert names(api, createdAfter=b) == ["c", "b"]
    assert names(api, createdBefore=b) == ["a"]
    assert names(api, createdAfter=a, createdBefore=c) == ["b", "a"]
    assert names(api, createdAfter="2100-01-01T00:00:00Z") == []
    assert names(api, createdBefore="2100-01-01T00:00:00+14:00") == ["c", "b", "a"]
    for early in ("1900-01-01T00:00:00Z", "0002-01-01T00:00:00-23:59"):
        assert names(api, createdAfter=early) == ["c", "b", "a"]


@pytest.mark.parametrize(
    "value", ["", "yesterday", "2026-01-01", "2026-01-01T00:00:00", "0001-01-01T00:00:00Z", "\0"]
)
def test_a_time_has_its_offset(api: Caller, value: str) -> None:
    for name in ("createdAfter", "createdBefore"):
        answer = refused(api.get("metronomes", query_string={name: value}), 422, "invalid")
        assert answer["details"].keys() == {name}


def test_filters_may_be_combined(api: Caller) -> None:
    for name, status in (("a1", "active"), ("a2", "paused"), ("a3", "draft"), ("b1", "active")):
        api.new_metronome(name=name, status=status)
    api.delete(api.new_metronome(name="a4"))
    assert names(api, q="a", status="active,paused") == ["a2", "a1"]
    assert names(api, q="a", status="active,active") == ["a1"]
    assert names(api, q="a", status="archived,paused") == ["a4", "a2"]
    assert names(api, q="a") == ["a3", "a2", "a1"]
    assert names(api, q="a", includeArchived="true") == ["a4", "a3", "a2", "a1"]
    assert names(api, status="active", includeArchived="true") == ["b1", "a1"]
    assert names(api, status="active,paused,draft", limit=2, offset=1) == ["a3", "a2"]


@pytest.mark.parametrize("query", ["", "&status=draft,active", "&q=t"])
def test_a_cursor_goes_on_behind_what_was_shown(api: Caller, query: str) -> None:
    for number in range(5):
        api.new_metronome(name=f"t{number}")
    seen, cursor = [], ""
    while True:
        answer = json.loads(api.get(f"metronomes?limit=2{query}{cursor}").get_data())
        seen += [one["name"] for one in answer["data"]]
        assert answer["has_more"] == (answer["next_cursor"] is not None)
        if not answer["has_more"]:
            break
        # What comes meanwhile moves nothing.
        api.new_metronome(name="t of meanwhile")
        cursor = f"&cursor={answer['next_cursor']}"
    assert seen == ["t4", "t3", "t2", "t1", "t0"]


def test_no_plan_reads_all_workflows(api: Caller, db: Database) -> None:
    with db.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO metronomes (id, organization_id, user_id, name, status, definition)"
                " SELECT 'met_' || lpad(n::text, 32, '0'), 'org_' || n % 50, 'u', 'n',"
                " CASE WHEN n % 500 = 0 THEN 'paused' ELSE 'draft' END, '{}'"
                " FROM generate_series(1, 20000) n"
            )
        )
        connection.exec_driver_sql("ANALYZE metronomes")
        for where, index in (
            ("organization_id = 'org_0'", "metronomes_by_organization"),
            ("organization_id = 'org_0' AND status = 'paused'", "metronomes_by_status"),
        ):
            plan = connection.exec_driver_sql(
                f"EXPLAIN SELECT id FROM metronomes WHERE {where} ORDER BY id DESC LIMIT 50"
            )
            assert index in "\n".join(str(line) for line in plan.scalars())
