from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from app.db import Database
from app.domain.errors import PreconditionFailed
from app.domain.models import Actor
from app.services import publishing as service
from tests.api.conftest import Caller, data, refused
from tests.api.definitions import called, publishable
from tests.processes import PATIENCE


@pytest.fixture
def metronome(api: Caller) -> str:
    """The path of a workflow that can be published."""
    return api.new_metronome(publishable("draft"))


def saved(api: Caller, metronome: str, said: str, **body: Any) -> str:
    """The path of a version that was saved now."""
    body = {"definition": publishable(said), **body}
    return f"{metronome}/versions/{data(api.post(f'{metronome}/versions', body), 201)['id']}"


def history(api: Caller, metronome: str) -> list[tuple[str, str, str | None]]:
    """The deployments, newest first."""
    return [
        (one["action"], one["label"], one["description"])
        for one in data(api.get(f"{metronome}/deployments"))
    ]


def triggers(db: Database) -> list[tuple[str, str | None]]:
    """What is listened for: version and slug."""
    with db.connect() as connection:
        found = connection.execute(text("SELECT version_id, slug FROM triggers ORDER BY id"))
        return [(row[0], row[1]) for row in found]


def test_a_version_is_published(api: Caller, metronome: str) -> None:
    before = api.get(metronome)
    path = saved(api, metronome, "first", description="the first")
    answer = api.post(f"{path}/publish", {})
    published = data(answer)
    version = data(api.get(path))
    assert (version["status"], version["label"]) == ("published", "v0")
    assert version["publishedAt"] is not None
    assert published["status"] == "active"
    assert published["publishedVersionId"] == version["id"]
    assert published["publishedVersionNumber"] == 0
    assert published["definition"] == publishable("draft")
    assert data(api.get(metronome)) == published
    assert answer.headers["ETag"] == api.get(metronome).headers["ETag"] != before.headers["ETag"]
    assert history(api, metronome) == [("published", "v0", "the first")]


def test_one_version_at_a_time_is_published(api: Caller, metronome: str) -> None:
    first, second = saved(api, metronome, "first"), saved(api, metronome, "second")
    for path in (first, second, first):
        published = data(api.post(f"{path}/publish", {}))
        assert path.endswith(published["publishedVersionId"])
        statuses = {one["id"]: one["status"] for one in data(api.get(f"{metronome}/versions"))}
        assert statuses.pop(published["publishedVersionId"]) == "published"
        assert set(statuses.values()) == {"saved"}
    labels = [(action, label) for action, label, _ in history(api, metronome)]
    assert labels == [("published", "v0"), ("published", "v1"), ("published", "v0")]


def test_publishing_again_changes_nothing(api: Caller, metronome: str) -> None:
    path = saved(api, metronome, "first", description="d")
    first = api.post(f"{path}/publish", {})
    same = {"definition": publishable("first"), "description": "d"}
    for body in ({}, same, {"snapshot": same}, {**same, "snapshot": same}):
        again = api.post(f"{path}/publish", body)
        assert data(again) == data(first)
        assert again.headers["ETag"] == first.headers["ETag"]
    assert data(api.get(f"{metronome}/versions"))[0]["revision"] == 0
    assert len(history(api, metronome)) == 1


def test_what_is_published_can_not_be_changed(api: Caller, metronome: str) -> None:
    path = saved(api, metronome, "first")
    data(api.post(f"{path}/publish", {}))
    version = data(api.get(path))
    other = {"definition": publishable("other")}
    for answer in (
        api.patch(path, other),
        api.patch(path, {"description": "x"}),
        api.delete(path),
        api.post(f"{path}/publish", other),
        api.post(f"{path}/publish", {"description": "x"}),
        api.post(f"{path}/publish", {"snapshot": {"description": "x"}}),
        api.post(f"{metronome}/publish", {"versionId": version["id"], **other}),
    ):
        body = refused(answer, 400, "version_published")
        assert "v0 is published" in body["message"]
    assert data(api.get(path)) == version
    data(api.post(f"{metronome}/unpublish", {}))
    assert data(api.patch(path, other))["revision"] == 1
    assert data(api.get(path))["status"] == "saved"


@pytest.mark.parametrize("nested", [False, True])
def test_a_version_is_changed_as_it_is_published(api: Caller, metronome: str, nested: bool) -> None:
    path = saved(api, metronome, "first")
    changes: dict[str, Any] = {"definition": publishable("better"), "description": "better"}
    body = {"snapshot": {**data(api.get(path)), **changes}} if nested else changes
    data(api.post(f"{path}/publish", body))
    version = data(api.get(path))
    assert (version["status"], version["revision"]) == ("published", 1)
    assert version["definition"] == publishable("better")
    assert history(api, metronome) == [("published", "v0", "better")]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"definition": {"nodes": 1}}, "definition.nodes"),
        ({"definition": None}, "definition"),
        ({"snapshot": []}, "snapshot"),
        ({"snapshot": {"definition": 1}}, "snapshot.definition"),
        ({"snapshot": {"description": "\x00"}}, "snapshot.description"),
        ({"description": "a", "snapshot": {"description": "b"}}, "description"),
        ({"description": None, "snapshot": {"description": "b"}}, "description"),
        ({"definition": publishable("a"), "snapshot": {"definition": {}}}, "definition"),
        ({"definition": {"v": 1}, "snapshot": {"definition": {"v": True}}}, "definition"),
        ({"active": True}, "active"),
        ({"x": 1}, "x"),
    ],
)
def test_what_can_not_be_read_is_named(
    api: Caller, metronome: str, body: dict[str, Any], field: str
) -> None:
    path = saved(api, metronome, "first")
    answer = api.post(f"{path}/publish", body)
    assert answer.status_code == 422
    assert field in (answer.json or {})["details"]
    assert history(api, metronome) == []


def test_what_can_not_be_published_is_not_even_changed(api: Caller, metronome: str) -> None:
    path = saved(api, metronome, "first")
    before = data(api.get(path)), data(api.get(metronome))
    lonely = {"nodes": [{"id": "a", "kind": "end"}], "edges": []}  # without a trigger
    refused(api.post(f"{path}/publish", {"definition": lonely}), 422, "not_publishable")
    refused(api.post(f"{metronome}/publish", {"definition": lonely}), 422, "not_publishable")
    assert (data(api.get(path)), data(api.get(metronome))) == before
    assert len(data(api.get(f"{metronome}/versions"))) == 1
    assert history(api, metronome) == []


def test_the_draft_is_published_as_the_version_that_equals_it(api: Caller, metronome: str) -> None:
    first = data(api.post(f"{metronome}/publish", {"active": True, "description": "d"}))
    assert first["publishedVersionNumber"] == 0
    (version,) = data(api.get(f"{metronome}/versions"))
    assert (version["description"], version["definition"]) == ("d", publishable("draft"))
    # as it is published already
    assert data(api.post(f"{metronome}/publish", {"active": True})) == first
    assert data(api.send("POST", f"{metronome}/publish")) == first
    # a description of its own makes a deployment of its own
    other = data(api.post(f"{metronome}/publish", {"description": "e"}))
    assert other["publishedVersionNumber"] == 1
    # a draft that equals an older version is that version
    api.patch(metronome, {"definition": publishable("next")})
    assert data(api.post(f"{metronome}/publish", {}))["publishedVersionNumber"] == 2
    api.patch(metronome, {"definition": publishable("draft")})
    assert data(api.post(f"{metronome}/publish", {}))["publishedVersionNumber"] == 1
    assert history(api, metronome)[0] == ("published", "v1", "e")


def test_a_version_that_was_deleted_does_not_come_back(api: Caller, metronome: str) -> None:
    path = saved(api, metronome, "draft")
    api.delete(path)
    assert data(api.post(f"{metronome}/publish", {}))["publishedVersionNumber"] == 1


def test_a_definition_is_published_as_the_draft(api: Caller, metronome: str) -> None:
    body = {"active": True, "definition": publishable("new")}
    published = data(api.post(f"{metronome}/publish", body))
    assert published["definition"] == publishable("new")
    (version,) = data(api.get(f"{metronome}/versions"))
    assert version["definition"] == publishable("new")
    assert version["id"] == published["publishedVersionId"]


def test_a_version_is_published_by_its_id(api: Caller, metronome: str) -> None:
    path = saved(api, metronome, "first")
    body = {"active": True, "versionId": path.rpartition("/")[2], "description": "by id"}
    assert data(api.post(f"{metronome}/publish", body))["publishedVersionNumber"] == 0
    assert data(api.get(metronome))["definition"] == publishable("draft")
    assert history(api, metronome) == [("published", "v0", "by id")]
    for unknown in ("ver_unknown", "a'b", "\u00e4"):
        answer = api.post(f"{metronome}/publish", {"versionId": unknown})
        refused(answer, 404, "version_not_found")


def test_unpublishing_keeps_the_versions(api: Caller, metronome: str) -> None:
    path = saved(api, metronome, "first")
    data(api.post(f"{path}/publish", {}))
    answer = api.post(f"{metronome}/unpublish", {"description": "it was wrong"})
    unpublished = data(answer)
    assert unpublished["status"] == "draft"
    assert unpublished["publishedVersionId"] is unpublished["publishedVersionNumber"] is None
    assert answer.headers["ETag"] == api.get(metronome).headers["ETag"]
    version = data(api.get(path))
    assert version["status"] == "saved"
    assert version["publishedAt"] is not None
    assert history(api, metronome)[0] == ("unpublished", "v0", "it was wrong")
    # what is not published stays as it is
    for again in (
        api.post(f"{metronome}/unpublish", {}),
        api.post(f"{metronome}/publish", {"active": False}),
    ):
        assert data(again) == unpublished
        assert again.headers["ETag"] == answer.headers["ETag"]
    assert len(history(api, metronome)) == 2
    assert api.delete(path).status_code == 200


def test_publish_with_active_false_unpublishes(api: Caller, metronome: str) -> None:
    data(api.post(f"{metronome}/publish", {"active": True}))
    assert data(api.post(f"{metronome}/publish", {"active": False}))["status"] == "draft"
    for body in ({"versionId": "ver_1"}, {"definition": publishable()}):
        answer = api.post(f"{metronome}/publish", {"active": False, **body})
        assert set(body) == set(refused(answer, 422, "invalid")["details"])
    refused(api.post(f"{metronome}/publish", {"active": "no"}), 422, "invalid")


def test_an_active_workflow_without_a_version_becomes_a_draft(api: Caller) -> None:
    path = api.new_metronome(publishable(), status="active")
    assert data(api.post(f"{path}/unpublish", {}))["status"] == "draft"
    assert history(api, path) == []


def test_a_paused_workflow_is_active_once_it_is_published(api: Caller, metronome: str) -> None:
    first = data(api.post(f"{metronome}/publish", {}))
    data(api.patch(metronome, {"status": "paused"}))
    again = data(api.post(f"{metronome}/publish", {}))
    assert (again["status"], again["publishedVersionId"]) == (
        "active",
        first["publishedVersionId"],
    )


def test_an_archived_workflow_is_neither_published_nor_unpublished(
    api: Caller, metronome: str
) -> None:
    path = saved(api, metronome, "first")
    api.delete(metronome)
    for answer in (
        api.post(f"{path}/publish", {}),
        api.post(f"{metronome}/publish", {}),
        api.post(f"{metronome}/unpublish", {}),
    ):
        refused(answer, 409, "metronome_archived")
    data(api.patch(metronome, {"status": "draft"}))
    assert data(api.post(f"{path}/publish", {}))["status"] == "active"


def test_only_the_expected_revision_is_published(api: Caller, metronome: str) -> None:
    path = saved(api, metronome, "first")
    old = {"If-Match": api.get(metronome).headers["ETag"]}
    data(api.patch(metronome, {"name": "changed"}))
    for where in (f"{path}/publish", f"{metronome}/publish", f"{metronome}/unpublish"):
        told = refused(api.post(where, {}, headers=old), 412, "precondition_failed")
        assert told["details"] == {"etag": api.get(metronome).headers["ETag"]}
    assert history(api, metronome) == []
    for where in (f"{path}/publish", f"{metronome}/unpublish", f"{metronome}/publish"):
        new = {"If-Match": api.get(metronome).headers["ETag"]}
        data(api.post(where, {}, headers=new))
        refused(api.post(f"{metronome}/unpublish", {}, headers=new), 412, "precondition_failed")
    assert data(api.post(f"{metronome}/unpublish", {}, headers={"If-Match": "*"}))


def test_triggers_follow_what_is_published(api: Caller, db: Database) -> None:
    path = api.new_metronome(called("one"))
    first = data(api.post(f"{path}/publish", {}))["publishedVersionId"]
    assert triggers(db) == [(first, "one")]
    body = {"definition": called("two")}
    second = data(api.post(f"{path}/publish", body))["publishedVersionId"]
    assert triggers(db) == [(second, "two")]
    data(api.post(f"{path}/versions/{first}/publish", {}))
    assert triggers(db) == [(first, "one")]
    data(api.post(f"{path}/unpublish", {}))
    assert triggers(db) == []


def test_publishing_again_brings_back_triggers_that_were_lost(api: Caller, db: Database) -> None:
    path = api.new_metronome(called("one"))
    first = data(api.post(f"{path}/publish", {}))
    with db.connect() as connection:
        connection.execute(text("DELETE FROM triggers"))
    assert data(api.post(f"{path}/publish", {})) == first
    assert triggers(db) == [(first["publishedVersionId"], "one")]
    assert len(history(api, path)) == 1


def test_the_history_tells_which_of_a_versions_definitions_it_was(
    api: Caller, metronome: str
) -> None:
    path = saved(api, metronome, "first")
    for said in ("first", "second"):
        data(api.post(f"{path}/publish", {"definition": publishable(said)}))
        data(api.post(f"{metronome}/unpublish", {}))
    revisions = [one["versionRevision"] for one in data(api.get(f"{metronome}/deployments"))]
    assert revisions == [1, 1, 0, 0]
    ways = "version.published,metronome.unpublished"
    ended, begun, *_ = data(api.get(f"metronomes/audit-events?action={ways}"))
    assert begun["payload"]["after"]["versionRevision"] == 1
    assert begun["payload"]["before"]["versionRevision"] is None
    assert ended["payload"]["before"]["versionRevision"] == 1
    assert ended["payload"]["after"]["versionRevision"] is None
    assert data(api.get(f"{path}?revision=0"))["definition"] == publishable("first")


def test_runs_use_what_is_published(api: Caller, metronome: str) -> None:
    published = data(api.post(f"{metronome}/publish", {}))["publishedVersionId"]
    api.patch(metronome, {"definition": publishable("later")})
    assert data(api.post(f"{metronome}/runs", {}), 201)["versionId"] == published
    data(api.post(f"{metronome}/unpublish", {}))
    of_draft = data(api.post(f"{metronome}/runs", {}), 201)["versionId"]
    assert data(api.get(f"{metronome}/versions/{of_draft}"))["definition"] == publishable("later")


def test_deployments_come_in_pages(api: Caller, metronome: str) -> None:
    path = saved(api, metronome, "first")
    for where in (f"{path}/publish", f"{metronome}/unpublish") * 2:
        data(api.post(where, {}))
    first = api.get(f"{metronome}/deployments?limit=3").json or {}
    assert [one["action"] for one in first["data"]] == ["unpublished", "published", "unpublished"]
    assert first["has_more"]
    cursor = first["next_cursor"]
    rest = api.get(f"{metronome}/deployments?limit=3&cursor={cursor}").json or {}
    assert [one["action"] for one in rest["data"]] == ["published"]
    assert {one["actorUserId"] for one in first["data"]} == {"ada"}
    assert {one["versionId"] for one in first["data"]} == {path.rpartition("/")[2]}


def test_of_several_that_publish_the_same_revision_one_succeeds(
    api: Caller, metronome: str, db: Database
) -> None:
    ids = [saved(api, metronome, str(number)).rpartition("/")[2] for number in range(4)]
    revision = data(api.get(metronome))["revision"]
    actor = Actor("key_1", "ada", "acme")
    together = threading.Barrier(4)

    def publish(version_id: str) -> str | None:
        together.wait(PATIENCE)
        try:
            return service.publish(
                db,
                actor,
                metronome.rpartition("/")[2],
                version_id,
                {"description": "mine"},
                expected=(revision,),
                connectors={},
            ).published_version_id
        except PreconditionFailed:
            return None

    with ThreadPoolExecutor(4) as pool:
        published = [one for one in pool.map(publish, ids) if one is not None]
    assert len(published) == 1
    versions = data(api.get(f"{metronome}/versions"))
    assert [one["id"] for one in versions if one["status"] == "published"] == published
    assert [one["id"] for one in versions if one["description"] == "mine"] == published
    assert len(history(api, metronome)) == 1
