"""The list of schedules, over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import jsonschema_rs
import pytest

from app.db import Database
from app.domain.models import Actor
from app.services.schedules import upcoming
from tests.api.conftest import Caller, data, refused
from tests.schedules import publish

ADA = Actor("key_test", "ada", "acme")
BERLIN = ZoneInfo("Europe/Berlin")


def test_schedules_tell_when_they_are_due(api: Caller, db: Database) -> None:
    config = {"cronExpression": "0 9 * * 1-5", "scheduleTimezone": "Europe/Berlin"}
    metronome_id = publish(db, ADA, config)

    (found,) = data(api.get("schedules"))

    assert found["metronomeId"] == metronome_id
    assert found["versionId"] == data(api.get(f"metronomes/{metronome_id}"))["publishedVersionId"]
    assert (found["nodeId"], found["userId"], found["paused"]) == ("s0", "ada", False)
    assert found["scheduleType"] == "cron"
    assert found["cronExpression"] == "0 9 * * 1-5"
    assert found["scheduleTimezone"] == "Europe/Berlin"
    assert (found["scheduledTime"], found["intervalSeconds"]) == (None, None)
    assert found["nextDueAt"] == found["upcoming"][0]
    times = [datetime.fromisoformat(one).astimezone(BERLIN) for one in found["upcoming"]]
    assert times == sorted(set(times))
    assert [(one.hour, one.minute) for one in times] == [(9, 0)] * 5
    assert all(one.isoweekday() <= 5 for one in times)


def test_the_list_is_what_the_document_says(api: Caller, db: Database, nobody: Caller) -> None:
    publish(db, ADA, {"intervalSeconds": 60}, {"scheduledTime": "2099-01-01"})
    document: Any = nobody.get("/openapi.json").json

    answer: Any = api.get("schedules").json

    schemas = document["components"]["schemas"]
    whole = {"$ref": "#/components/schemas/ScheduleList", "components": document["components"]}
    jsonschema_rs.validate(whole, answer)
    assert answer["data"][0].keys() == schemas["Schedule"]["properties"].keys()


def test_a_paused_schedule_is_not_due(api: Caller, db: Database) -> None:
    metronome_id = publish(db, ADA, {"intervalSeconds": 60})
    data(api.patch(f"metronomes/{metronome_id}", {"status": "paused"}))

    (found,) = data(api.get("schedules"))

    assert (found["paused"], found["nextDueAt"], found["upcoming"]) == (True, None, [])
    data(api.patch(f"metronomes/{metronome_id}", {"status": "active"}))
    (found,) = data(api.get("schedules"))
    assert not found["paused"]
    assert len(found["upcoming"]) == 5


def test_a_schedule_of_a_deleted_workflow_is_not_due(api: Caller, db: Database) -> None:
    metronome_id = publish(db, ADA, {"intervalSeconds": 60})

    assert api.delete(f"metronomes/{metronome_id}").status_code == 200

    (found,) = data(api.get("schedules"))
    assert (found["paused"], found["nextDueAt"], found["upcoming"]) == (True, None, [])
    assert upcoming(db, limit=1) == []


def test_what_is_not_published_has_no_schedule(api: Caller, db: Database) -> None:
    metronome_id = publish(db, ADA, {"intervalSeconds": 60})

    data(api.post(f"metronomes/{metronome_id}/unpublish"))

    assert data(api.get("schedules")) == []


def test_schedules_are_listed_in_pages_and_by_workflow(api: Caller, db: Database) -> None:
    first = publish(db, ADA, {"intervalSeconds": 60}, {"scheduledTime": "2099-01-01"})
    second = publish(db, ADA, {"intervalSeconds": 60})

    whole = data(api.get("schedules"))

    assert [one["metronomeId"] for one in whole] == [second, first, first]
    assert len({one["id"] for one in whole}) == 3
    assert len(data(api.get(f"schedules?metronomeId={first}"))) == 2
    assert data(api.get("schedules?metronomeId=met_unknown")) == []
    page: Any = api.get("schedules?limit=2").json
    assert (page["data"], page["has_more"]) == (whole[:2], True)
    rest: Any = api.get(f"schedules?limit=2&cursor={page['next_cursor']}").json
    assert (rest["data"], rest["has_more"]) == (whole[2:], False)


def test_schedules_of_others_are_not_told(api: Caller, other: Caller, db: Database) -> None:
    metronome_id = publish(db, ADA, {"intervalSeconds": 60})

    assert data(other.get("schedules")) == []
    assert data(other.get(f"schedules?metronomeId={metronome_id}")) == []
    assert len(data(api.get("schedules"))) == 1


@pytest.mark.parametrize("query", ["limit=101", "cursor=%00", "metronomeId=", "status=active"])
def test_what_is_no_query_is_refused(api: Caller, query: str) -> None:
    refused(api.get(f"schedules?{query}"), 422, "invalid")


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"cronExpression": "* * * *"}, "cronExpression"),
        ({"scheduleType": "one-time"}, "scheduledTime"),
        ({"intervalSeconds": 1, "scheduleTimezone": "Mars"}, "scheduleTimezone"),
        ({"intervalSeconds": 1, "missed": "all"}, "missed"),
    ],
)
def test_a_schedule_with_faults_can_not_be_published(
    api: Caller, config: dict[str, Any], field: str
) -> None:
    node = {"id": "s", "kind": "trigger", "subtype": "periodic", "config": config}
    edges = [{"source": "s", "target": "e"}]
    path = api.new_metronome({"nodes": [node, {"id": "e", "kind": "end"}], "edges": edges})

    answer = api.post(f"{path}/publish", {"active": True})

    assert answer.status_code == 422, answer.json
    assert field in answer.get_data(as_text=True)
