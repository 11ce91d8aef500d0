"""Lists: pages by offset and by cursor, filters, and what is no page."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from app.db import Database
from tests.api import states
from tests.api.conftest import Caller, data, refused


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


def test_a_cursor_is_not_moved_by_what_is_written_meanwhile(
    api: Caller, three: tuple[str, list[str]]
) -> None:
    metronome, ids = three
    path = f"{metronome}/runs?limit=1"
    seen, cursor = [], ""
    while True:
        body = json.loads(api.get(f"{path}{cursor}").get_data())
        seen += [one["id"] for one in body["data"]]
        api.new_run(metronome)
        assert body["has_more"] == (body["next_cursor"] is not None)
        if not body["has_more"]:
            break
        cursor = f"&cursor={body['next_cursor']}"
    assert seen == ids


def test_a_cursor_of_no_such_list_is_refused_by_every_list(api: Caller) -> None:
    run = api.new_run().split("/")
    document = api.get("/openapi.json").json or {}
    told = 0
    for path, item in document["paths"].items():
        names = {parameter.get("name") for parameter in item.get("get", {}).get("parameters", ())}
        if "cursor" not in names:
            continue
        listed = path.replace("{metronomeId}", run[1]).replace("{runId}", run[3])
        assert api.get(listed).status_code == 200, listed
        of_others = ("ver_1", "key_1", "run_", "0x", "1" * 10)
        wrong = ["%00", "", "a%20b", "run_%C3%A4", "x" * 101, "%F0%9F%98%80", *of_others]
        if path.endswith("owner-candidates"):  # a user's id may be any text
            wrong = ["%00", "", "x" * 256]
        for bad in wrong:
            answer = refused(api.get(f"{listed}?cursor={bad}"), 422, "invalid")
            assert answer["details"].keys() == {"cursor"}, (listed, bad)
        told += 1
    assert told >= 11


@pytest.mark.parametrize(
    ("path", "cursor"),
    [
        ("metronomes", "met_0"),
        ("{metronome}/runs", "run_0"),
        ("{metronome}/versions", "0"),
        ("{metronome}/deployments", "evt_0"),
        ("metronomes/trigger-events", "tev_0"),
        ("approvals", "step_0_000001"),
        ("{run}/steps", "999999999"),
    ],
)
def test_behind_a_cursor_that_is_no_things_there_is_what_comes_behind(
    api: Caller, path: str, cursor: str
) -> None:
    run = api.new_run()
    listed = path.format(run=run, metronome=run.rpartition("/runs/")[0])
    assert data(api.get(f"{listed}?cursor={cursor}")) == []


def test_the_steps_of_a_run_have_cursors(api: Caller, db: Database) -> None:
    run = api.new_run()
    with db.connect() as connection:
        connection.exec_driver_sql(
            "INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status, attempt,"
            " completed_at) SELECT %s, n, 'm', 'n' || n, 'x', 'completed', 1, now()"
            " FROM generate_series(1, 5) n",
            (run.rpartition("/")[2],),
        )
    body = json.loads(api.get(f"{run}/steps?limit=2").get_data())
    assert [one["nodeId"] for one in body["data"]] == ["n1", "n2"]
    body = json.loads(api.get(f"{run}/steps?cursor={body['next_cursor']}").get_data())
    assert [one["nodeId"] for one in body["data"]] == ["n3", "n4", "n5"]
    assert (body["has_more"], body["next_cursor"]) == (False, None)


def test_runs_are_listed_by_time(api: Caller, three: tuple[str, list[str]], db: Database) -> None:
    metronome, ids = three
    with db.connect() as connection:
        connection.exec_driver_sql(
            "UPDATE runs SET created_at = created_at - interval '2 hours' WHERE id = %s", (ids[2],)
        )
    middle = datetime.now(UTC) - timedelta(hours=1)
    for name, found in (("createdAfter", ids[:2]), ("createdBefore", ids[2:])):
        for moment in (middle, middle.astimezone(timezone(timedelta(hours=5, minutes=30)))):
            answer = api.get(f"{metronome}/runs", query_string={name: moment.isoformat()})
            assert [one["id"] for one in data(answer)] == found
    exact = data(api.get(f"{metronome}/runs/{ids[0]}"))["createdAt"]
    after = api.get(f"{metronome}/runs", query_string={"createdAfter": exact})
    before = api.get(f"{metronome}/runs", query_string={"createdBefore": exact})
    assert [one["id"] for one in data(after)] == ids[:1]
    assert [one["id"] for one in data(before)] == ids[1:]


def test_no_get_passes_over_a_parameter_that_it_does_not_know(api: Caller) -> None:
    metronome = api.new_metronome()
    version = data(api.post(f"{metronome}/versions"), 201)["id"]
    run = api.new_run(metronome)
    ids = {"{metronomeId}": metronome[11:], "{runId}": run.rpartition("/")[2]}
    document = api.get("/openapi.json").json or {}
    asked = 0
    for path, item in document["paths"].items():
        if "get" not in item or not path.startswith("/v1/"):
            continue
        for name, value in {**ids, "{versionId}": version}.items():
            path = path.replace(name, value)
        answer = refused(api.get(f"{path}?bogus=1"), 422, "invalid")
        assert answer["details"]["bogus"] == ["there is no such query parameter"], path
        assert "422" in item["get"]["responses"]
        asked += 1
    assert asked > 15


def test_versions_children_and_deliveries_are_listed_by_time(api: Caller, db: Database) -> None:
    metronome = api.new_metronome()
    run = api.new_run(metronome)
    for _ in range(2):
        data(api.post(f"{metronome}/versions"), 201)
        states.nested(db, run, "completed")
        body = {"triggerType": "email", "payload": {}}
        sample = data(api.post(f"{metronome}/triggers/test", body), 201)
        assert sample["triggerEvent"]["metronomeId"] == metronome[11:]
    lists = {
        f"{metronome}/versions": "versions",
        f"{run}/children": "runs",
        f"{metronome}/trigger-events": "trigger_events",
        "metronomes/trigger-events": "trigger_events",
    }
    middle = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    for path, table in lists.items():
        new, old = (one["id"] for one in data(api.get(path)))
        with db.connect() as connection:
            connection.exec_driver_sql(
                f"UPDATE {table} SET created_at = now() - interval '2 hours' WHERE id = %s", (old,)
            )
        for name, found in (("createdAfter", new), ("createdBefore", old)):
            answer = api.get(path, query_string={name: middle})
            assert [one["id"] for one in data(answer)] == [found], (path, name)


@pytest.mark.parametrize(
    "moment", ["", "yesterday", "2026-01-31", "2026-01-31T12:00:00", "9999-12-31T23:59:59Z", "0"]
)
def test_a_time_without_its_offset_is_no_moment(api: Caller, moment: str) -> None:
    metronome = api.new_metronome()
    for name in ("createdAfter", "createdBefore"):
        answer = api.get(f"{metronome}/runs", query_string={name: moment})
        assert name in refused(answer, 422, "invalid")["details"]


def test_runs_of_several_statuses_come_newest_first(
    api: Caller, three: tuple[str, list[str]]
) -> None:
    metronome, ids = three
    api.post(f"{metronome}/runs/{ids[1]}/cancel")
    query = "status=cancelled,queued,failed,queued"
    assert page(api, f"{metronome}/runs?{query}") == (ids, False)
    assert page(api, f"{metronome}/runs?{query}&limit=2") == (ids[:2], True)
    assert page(api, f"{metronome}/runs?{query}&limit=2&offset=1") == (ids[1:], False)
    assert page(api, f"{metronome}/runs?{query}&cursor={ids[0]}") == (ids[1:], False)
    assert page(api, f"{metronome}/runs?{query}&q={ids[2]}") == (ids[2:], False)
