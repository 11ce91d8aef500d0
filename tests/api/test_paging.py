from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.conftest import Caller, data


def page(api: Caller, path: str) -> tuple[list[str], bool]:
    body = json.loads(api.get(path).get_data())
    assert body["object"] == "list"
    return [one["id"] for one in body["data"]], body["has_more"]


@pytest.fixture
def three(api: Caller) -> tuple[str, list[str]]:
    """A workflow and the ids of its runs, newest first."""
    metronome = api.new_metronome()
    return metronome, [api.new_run(metronome).rpartition("/")[2] for _ in range(3)][::-1]


def test_runs_come_newest_first(api: Caller, three: tuple[str, list[str]]) -> None:
    metronome, ids = three
    assert page(api, f"{metronome}/runs") == (ids, False)
    assert page(api, f"{metronome}/runs?limit=2") == (ids[:2], True)
    assert page(api, f"{metronome}/runs?limit=3") == (ids, False)
    assert page(api, f"{metronome}/runs?limit=2&offset=2") == (ids[2:], False)
    assert page(api, f"{metronome}/runs?offset=3") == ([], False)
    assert page(api, f"{metronome}/runs?limit=0") == ([], False)
    assert page(api, f"{metronome}/runs?limit=0&offset=9") == ([], False)


def test_metronomes_come_newest_first(api: Caller) -> None:
    ids = [api.new_metronome().rpartition("/")[2] for _ in range(3)][::-1]
    assert page(api, "metronomes") == (ids, False)
    assert page(api, "metronomes?limit=1&offset=1") == (ids[1:2], True)


def test_metronomes_are_listed_by_status(api: Caller) -> None:
    active, paused = api.new_metronome(status="active"), api.new_metronome(status="paused")
    api.new_metronome()
    assert [one["id"] for one in data(api.get("metronomes?status=active"))] == [active[11:]]
    for query in ("status=active,paused", "status=active&status=paused", "status=paused,active"):
        found = [one["id"] for one in data(api.get(f"metronomes?{query}"))]
        assert found == [paused[11:], active[11:]]


@pytest.mark.parametrize("path", ["metronomes", "{metronome}/runs"])
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("limit=ten", "limit"),
        ("limit=1.0", "limit"),
        ("limit=1e1", "limit"),
        ("limit=%EF%BC%95", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("limit=%00", "limit"),
        ("offset=-1", "offset"),
        ("offset=1000001", "offset"),
        ("offset=nan", "offset"),
        ("status=done", "status.0"),
        ("status=draft,queued", "status.0,status.1"),
        ("status=%00", "status.0"),
        ("status=", "status.0"),
        ("status=active,", "status.0,status.1"),
        ("stauts=queued", "stauts"),
        ("%ff=1", "%FF"),
    ],
)
def test_a_bad_query_is_named(api: Caller, path: str, query: str, field: str) -> None:
    metronome = api.new_metronome()
    response = api.get(f"{path.format(metronome=metronome)}?{query}")
    assert response.status_code == 422
    assert json.loads(response.get_data())["details"].keys() & set(field.split(","))


@pytest.mark.parametrize("value", ["1", "yes", "True", "", "on"])
def test_a_flag_is_true_or_false(api: Caller, value: str) -> None:
    response = api.get(f"metronomes?includeArchived={value}")
    assert response.status_code == 422
    assert "includeArchived" in json.loads(response.get_data())["details"]
    assert api.get("metronomes?includeArchived=false").status_code == 200


def test_runs_are_found_by_what_they_have(api: Caller) -> None:
    metronome = api.new_metronome()
    one = api.new_run(metronome, attachedProjectId="p1", idempotencyKey="Order 100%_x")
    two = api.new_run(metronome, attachedTicketId="t1", triggerType="github")
    api.post(f"{two}/cancel")

    def found(query: Any) -> list[str]:
        answer = api.get(f"{metronome}/runs", query_string=query)
        return [f"{metronome}/runs/{run['id']}" for run in data(answer)]

    assert found({"status": "queued"}) == [one]
    assert found({"status": "cancelled,queued"}) == [two, one]
    assert found({"status": "failed"}) == []
    assert found({"projectId": "p1"}) == [one]
    assert found({"projectId": "p"}) == []
    assert found({"ticketId": "t1"}) == [two]
    assert found({"ticketId": "t1", "status": "queued"}) == []
    assert found({"q": "order 100%"}) == [one]
    assert found({"q": "%"}) == [one]
    assert found({"q": "r_1"}) == []
    assert found({"q": "GITHUB"}) == [two]
    assert found({"q": one.rpartition("/")[2]}) == [one]
    assert found({"q": ""}) == [two, one]
    assert api.get(f"{metronome}/runs", query_string={"q": "\0"}).status_code == 422
    assert api.get(f"{metronome}/runs", query_string={"q": "x" * 201}).status_code == 422
