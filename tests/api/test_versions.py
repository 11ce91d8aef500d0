from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from app.db import Database
from app.ids import new_id
from app.store import versions
from tests.api.conftest import Caller, data, refused
from tests.api.definitions import publishable


@pytest.fixture
def metronome(api: Caller) -> str:
    """The path of a workflow that can be published."""
    return api.new_metronome(publishable("draft"), triggerSummary="by hand")


def saved(api: Caller, metronome: str, **body: Any) -> dict[str, Any]:
    """A version that was saved now."""
    found: dict[str, Any] = data(api.post(f"{metronome}/versions", body), 201)
    return found


def audits(db: Database, version_id: str) -> list[tuple[str, Any]]:
    """The actions of a version's audit events, and their payloads."""
    with db.connect() as connection:
        found = connection.execute(
            text("SELECT action, payload FROM audit_events WHERE version_id = :id ORDER BY id"),
            {"id": version_id},
        )
        return [(row[0], row[1]) for row in found]


def test_versions_are_numbered_from_0_and_hold_the_draft(api: Caller, metronome: str) -> None:
    first = saved(api, metronome, label="mine", name="mine")
    assert first["id"].startswith("ver_")
    assert metronome.endswith(first["metronomeId"])
    assert {name: first[name] for name in ("version", "label", "status", "revision")} == {
        "version": 0,
        "label": "v0",
        "status": "saved",
        "revision": 0,
    }
    assert (first["nodeCount"], first["edgeCount"]) == (3, 2)
    assert (first["description"], first["publishedAt"]) == (None, None)
    assert first["triggerSummary"] == "by hand"
    assert first["definition"] == publishable("draft")
    second = saved(api, metronome, definition=publishable("other"), description="why")
    assert (second["version"], second["label"], second["description"]) == (1, "v1", "why")
    assert second["definition"] == publishable("other")
    assert data(api.get(metronome))["definition"] == publishable("draft")
    assert data(api.get(f"{metronome}/versions/{second['id']}")) == second
    assert data(api.get(f"{metronome}/versions")) == [second, first]


def test_a_body_is_not_needed(api: Caller, metronome: str) -> None:
    assert data(api.send("POST", f"{metronome}/versions"), 201)["version"] == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"definition": None}, "definition"),
        ({"definition": []}, "definition"),
        ({"definition": {"nodes": [{"id": "a", "kind": "nothing"}]}}, "definition.nodes.0.kind"),
        ({"description": 1}, "description"),
        ({"description": "a\x00"}, "description"),
        ({"description": "x" * 10_001}, "description"),
        ({"definition": {"nodes": [], "edges": [], "name": "\ud800"}}, "definition.name"),
        ({"version": 7}, "version"),
        ({"status": "published"}, "status"),
    ],
)
def test_what_can_not_be_saved_is_named(
    api: Caller, metronome: str, body: dict[str, Any], field: str
) -> None:
    version = saved(api, metronome)
    for answer in (
        api.post(f"{metronome}/versions", body),
        api.patch(f"{metronome}/versions/{version['id']}", body),
    ):
        assert answer.status_code == 422
        assert field in (answer.json or {})["details"]
    assert data(api.get(f"{metronome}/versions")) == [version]


def test_a_version_is_changed_and_its_revisions_stay(
    api: Caller, metronome: str, db: Database
) -> None:
    version = saved(api, metronome, description="one")
    path = f"{metronome}/versions/{version['id']}"
    described = data(api.patch(path, {"description": "two", "label": "x", "name": "y"}))
    assert (described["description"], described["revision"]) == ("two", 0)
    shorter = {"nodes": [{"id": "only", "kind": "end"}], "edges": []}
    changed = data(api.patch(path, {"definition": shorter}))
    assert (changed["revision"], changed["nodeCount"], changed["edgeCount"]) == (1, 1, 0)
    assert changed["updatedAt"] > version["updatedAt"]
    assert changed["createdAt"] == version["createdAt"]
    assert data(api.patch(path, {"description": None}))["description"] is None
    now = data(api.get(path))
    assert now["definition"] == shorter
    assert data(api.get(f"{path}?revision=1")) == now
    then = data(api.get(f"{path}?revision=0"))
    assert then["definition"] == publishable("draft")
    assert (then["revision"], then["nodeCount"], then["edgeCount"]) == (0, 3, 2)
    refused(api.get(f"{path}?revision=2"), 404, "version_not_found")
    refused(api.get(f"{path}?revision=-1"), 422, "invalid")
    told = audits(db, version["id"])
    assert [action for action, _ in told] == ["version.saved", *["version.updated"] * 3]
    assert told[2][1] == {
        "version": 0,
        "before": {"revision": 0, "description": "two", "nodeCount": 3, "edgeCount": 2},
        "after": {"revision": 1, "description": "two", "nodeCount": 1, "edgeCount": 0},
    }


def test_a_run_leads_to_the_definition_that_it_runs(api: Caller, metronome: str) -> None:
    version = saved(api, metronome)
    path = f"{metronome}/versions/{version['id']}"
    runs = []
    for said in ("second", "third"):
        runs.append(data(api.post(f"{metronome}/runs", {"versionId": version["id"]}), 201))
        data(api.patch(path, {"definition": publishable(said)}))
    assert [run["versionRevision"] for run in runs] == [0, 1]
    for run, said in zip(runs, ("draft", "second"), strict=True):
        shown = data(api.get(f"{path}?revision={run['versionRevision']}"))
        assert shown["definition"] == publishable(said)


def test_a_change_to_the_same_is_none(api: Caller, metronome: str, db: Database) -> None:
    version = saved(api, metronome, description="one")
    path = f"{metronome}/versions/{version['id']}"
    same = {"definition": publishable("draft"), "description": "one"}
    for body in ({}, {"label": "x"}, same):
        assert data(api.patch(path, body)) == version
    assert len(audits(db, version["id"])) == 1


def test_a_deleted_version_is_in_no_list_and_no_use(
    api: Caller, metronome: str, db: Database
) -> None:
    first, second = saved(api, metronome), saved(api, metronome)
    path = f"{metronome}/versions/{first['id']}"
    for _ in range(2):
        answer = api.delete(path)
        assert (answer.status_code, answer.json) == (200, {"success": True, "deleted": True})
    assert data(api.get(f"{metronome}/versions")) == [second]
    archived = data(api.get(path))
    assert archived["status"] == "archived"
    assert data(api.get(f"{metronome}/versions?status=archived")) == [archived]
    assert data(api.get(f"{metronome}/versions?status=archived,saved")) == [second, archived]
    refused(api.patch(path, {"description": "x"}), 409, "version_archived")
    refused(api.post(f"{path}/publish", {}), 409, "version_archived")
    assert [action for action, _ in audits(db, first["id"])][1:] == ["version.archived"]
    assert saved(api, metronome)["version"] == 2  # its number stays taken


def test_a_deleted_version_can_not_be_run(api: Caller, metronome: str) -> None:
    version = saved(api, metronome)
    run = data(api.post(f"{metronome}/runs", {"versionId": version["id"]}), 201)
    api.delete(f"{metronome}/versions/{version['id']}")
    answer = api.post(f"{metronome}/runs", {"versionId": version["id"]})
    assert answer.status_code == 422
    assert data(api.get(f"{metronome}/runs/{run['id']}"))["status"] == "queued"


def test_what_was_only_run_has_no_number_and_never_changes(api: Caller, metronome: str) -> None:
    of_draft = data(api.post(f"{metronome}/runs", {}), 201)["versionId"]
    inline = {"definition": publishable("inline")}
    of_inline = data(api.post(f"{metronome}/runs", inline), 201)["versionId"]
    assert data(api.get(f"{metronome}/versions")) == []
    for version_id, said in ((of_draft, "draft"), (of_inline, "inline")):
        path = f"{metronome}/versions/{version_id}"
        version = data(api.get(path))
        assert version["definition"] == publishable(said)
        assert (version["version"], version["label"]) == (None, None)
        told = refused(api.patch(path, {"description": "x"}), 409, "version_not_saved")
        assert "save its definition" in told["message"]
        refused(api.post(f"{path}/publish", {}), 409, "version_not_saved")
        refused(api.delete(path), 409, "version_not_saved")
        assert data(api.get(path)) == version
    diff = f"{metronome}/versions/{of_inline}/diff?againstVersionId={of_draft}"
    assert data(api.get(diff))["nodes"]["changedCount"] == 1
    assert saved(api, metronome)["version"] == 0


def test_versions_come_in_pages(api: Caller, metronome: str) -> None:
    numbers = [saved(api, metronome)["version"] for _ in range(5)]
    assert numbers == [0, 1, 2, 3, 4]
    first = api.get(f"{metronome}/versions?limit=2").json or {}
    assert ([one["version"] for one in first["data"]], first["has_more"]) == ([4, 3], True)
    saved(api, metronome)  # which moves nothing behind the cursor
    cursor = first["next_cursor"]
    second = api.get(f"{metronome}/versions?limit=2&cursor={cursor}").json or {}
    assert [one["version"] for one in second["data"]] == [2, 1]
    third = api.get(f"{metronome}/versions?limit=2&cursor={second['next_cursor']}").json or {}
    assert [one["version"] for one in third["data"]] == [0]
    assert (third["has_more"], third["next_cursor"]) == (False, None)
    offset = api.get(f"{metronome}/versions?limit=2&offset=2").json or {}
    assert [one["version"] for one in offset["data"]] == [3, 2]


def test_all_versions_come_without_being_asked_for_pages(api: Caller, metronome: str) -> None:
    for _ in range(101):  # more than any other list has by default
        saved(api, metronome)
    found = api.get(f"{metronome}/versions").json or {}
    assert [one["version"] for one in found["data"]] == list(reversed(range(101)))
    assert (found["has_more"], found["next_cursor"]) == (False, None)
    for limit in ("1000", "1001"):
        expected = 200 if limit == "1000" else 422
        assert api.get(f"{metronome}/versions?limit={limit}").status_code == expected


def test_a_page_of_big_versions_ends_early_and_leads_on(
    api: Caller, metronome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(6):
        saved(api, metronome, definition=publishable("x" * 1_000))
    monkeypatch.setattr(versions, "PAGE_BYTES", 2_000)  # behind the second of them
    seen, more = [], "?offset=1"
    for _ in range(3):
        found = api.get(f"{metronome}/versions{more}").json or {}
        seen.append([one["version"] for one in found["data"]])
        more = f"?cursor={found['next_cursor']}"
    assert seen == [[4, 3], [2, 1], [0]]
    assert found["has_more"] is False
    assert len(data(api.get(f"{metronome}/versions?limit=1"))) == 1
    assert (api.get(f"{metronome}/versions?offset=6").json or {})["next_cursor"] is None


def test_versions_are_compared(api: Caller, metronome: str) -> None:
    base = saved(api, metronome)
    other = publishable("other")
    other["nodes"].append({"id": "more", "kind": "note"})
    del other["edges"][0]
    target = saved(api, metronome, definition=other)
    path = f"{metronome}/versions/{target['id']}/diff"
    found = data(api.get(f"{path}?againstVersionId={base['id']}"))
    assert found["metronomeId"] == base["metronomeId"]
    assert (found["baseVersionId"], found["baseVersionNumber"]) == (base["id"], 0)
    assert (found["targetVersionId"], found["targetVersionNumber"]) == (target["id"], 1)
    assert found["nodes"] == {
        "added": [{"id": "more", "kind": "note"}],
        "removed": [],
        "changed": [
            {
                "id": "say",
                "fields": ["config"],
                "before": publishable("draft")["nodes"][1],
                "after": publishable("other")["nodes"][1],
            }
        ],
        "addedCount": 1,
        "removedCount": 0,
        "changedCount": 1,
    }
    assert found["edges"]["removed"] == [publishable()["edges"][0]]
    same = data(api.get(f"{path}?againstVersionId={target['id']}"))
    assert same["nodes"]["changed"] == same["edges"]["removed"] == []
    for query in ("", "?againstVersionId=", f"?againstVersionId={new_id('ver')}"):
        refused(api.get(f"{path}{query}"), 422, "invalid")
    refused(api.get(f"{path}?againstVersionId=%00"), 422, "invalid")


def test_a_version_is_saved_once_for_a_key(api: Caller, metronome: str, db: Database) -> None:
    body = {"description": "once", "idempotencyKey": "k1"}
    first = api.post(f"{metronome}/versions", body)
    version = data(first, 201)
    assert "Idempotent-Replay" not in first.headers
    again = api.post(f"{metronome}/versions", body)
    assert data(again, 200) == version
    assert again.headers["Idempotent-Replay"] == "true"
    by_header = api.post(
        f"{metronome}/versions", {"description": "once"}, headers={"Idempotency-Key": "k1"}
    )
    assert data(by_header, 200) == version
    other = {"description": "other", "idempotencyKey": "k1"}
    refused(api.post(f"{metronome}/versions", other), 422, "idempotency_key_reused")
    assert len(data(api.get(f"{metronome}/versions"))) == 1
    assert len(audits(db, version["id"])) == 1
    elsewhere = api.new_metronome()
    assert data(api.post(f"{elsewhere}/versions", body), 201)["id"] != version["id"]


def test_what_was_made_for_a_test_can_not_be_saved(api: Caller, metronome: str) -> None:
    body = {"selection": {"nodeId": "say"}}
    version_id = data(api.post(f"{metronome}/test-runs", body), 201)["versionId"]
    path = f"{metronome}/versions/{version_id}"
    told = refused(api.patch(path, {"description": "x"}), 409, "version_not_saved")
    assert "save its" not in told["message"]


def test_another_organizations_version_is_nothing_to_compare_with(
    api: Caller, other: Caller, metronome: str
) -> None:
    version = saved(api, metronome)
    theirs = other.new_metronome()
    against = saved(other, theirs)
    diff = f"{theirs}/versions/{against['id']}/diff?againstVersionId={version['id']}"
    refused(other.get(diff), 422, "invalid")
    bad = {"definition": {"nodes": 1}, "idempotencyKey": "k"}
    refused(other.post(f"{metronome}/versions", bad), 404, "metronome_not_found")
