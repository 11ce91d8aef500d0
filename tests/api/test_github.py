"""GitHub's webhooks: what is signed starts runs, what is not is refused, and nothing runs twice."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from werkzeug.test import TestResponse

from app.db import Database
from app.services import webhooks
from app.store.webhooks import REFUSALS_A_MINUTE
from tests.api.conftest import Caller, data, refused
from tests.api.test_triggers import published, runs_of

PUSH = {
    "ref": "refs/heads/main",
    "repository": {"full_name": "acme/site"},
    "sender": {"login": "ada"},
    "commits": [{"message": "Ship it"}],
}
PULL = {
    "action": "opened",
    "pull_request": {"head": {"ref": "fix-17"}, "base": {"ref": "main"}},
    "repository": {"full_name": "acme/site"},
    "sender": {"login": "Ada"},
}


class GitHub:
    """Sends deliveries as GitHub does."""

    def __init__(self, caller: Caller, webhook_id: str, secret: str) -> None:
        self.caller = caller
        self.webhook_id = webhook_id
        self.secret = secret

    def sign(self, body: bytes) -> str:
        """The signature of a body."""
        return "sha256=" + hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()

    def send(
        self,
        payload: Any,
        *,
        event: str = "push",
        delivery: str | None = None,
        query: str = "",
        body: bytes | None = None,
        mimetype: str = "application/json",
        **headers: str,
    ) -> TestResponse:
        """One delivery; it is signed unless ``headers`` say something else."""
        body = json.dumps(payload).encode() if body is None else body
        sent = {"X-GitHub-Event": event, "Content-Type": mimetype}
        if delivery is not None:
            sent["X-GitHub-Delivery"] = delivery
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if not given and "secret=" not in query:
            given = {"X-Hub-Signature-256": self.sign(body)}
        return self.caller.post(
            f"metronomes/github/inbound{query}", data=body, headers=sent | given
        )

    def events(self, payload: Any, **options: Any) -> list[dict[str, Any]]:
        """What a delivery came to, which is to be taken."""
        answer = self.send(payload, **options)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        found = answer.json or {}
        assert (found["success"], found["object"]) == (True, "list")
        assert found["matched_count"] == sum(one["status"] == "matched" for one in found["data"])
        events: list[dict[str, Any]] = found["data"]
        return events


def _hook(db: Database, caller: Caller, organization_id: str, **options: Any) -> GitHub:
    made, secret = webhooks.create(
        db, name="test", user_id="ada", organization_id=organization_id, **options
    )
    return GitHub(caller, made.id, secret)


@pytest.fixture
def github(db: Database, nobody: Caller) -> GitHub:
    """The sender of a webhook of the organization "acme"."""
    return _hook(db, nobody, "acme")


def test_a_signed_delivery_starts_a_run(api: Caller, github: GitHub) -> None:
    config = {"githubEventType": "push", "githubRepositoryContains": "ACME/"}
    path = published(api, "github", config)
    (event,) = github.events(PUSH, delivery="d-1")
    (run,) = runs_of(api, path)
    assert (event["status"], event["runId"]) == ("matched", run["id"])
    assert event["summary"] == "push in acme/site"
    assert run["input"] == {**PUSH, "githubEvent": "push", "githubDelivery": "d-1"}
    assert (run["triggerType"], run["idempotencyKey"]) == ("github", "github:d-1")
    assert (run["userId"], run["triggerEventId"]) == ("ada", event["id"])


@pytest.mark.parametrize(
    ("config", "event", "payload", "matches"),
    [
        ({"githubEventType": "pull_request"}, "pull_request", PULL, True),
        ({"githubEventType": "pull_request"}, "push", PUSH, False),
        ({"githubBranchContains": "fix"}, "pull_request", PULL, True),
        ({"githubBranchContains": "main"}, "pull_request", PULL, True),
        ({"githubBranchContains": "main"}, "push", PUSH, True),
        ({"githubBranchContains": "release"}, "push", PUSH, False),
        ({"githubActorContains": "ada"}, "pull_request", PULL, True),
        ({"githubActorContains": "bob"}, "pull_request", PULL, False),
        ({"githubActionContains": "open"}, "pull_request", PULL, True),
        ({"githubActionContains": "closed"}, "pull_request", PULL, False),
        ({"githubPayloadContains": "ship it"}, "push", PUSH, True),
        ({"githubPayloadContains": "ship it"}, "pull_request", PULL, False),
        ({"githubRepositoryContains": "other"}, "push", PUSH, False),
        ({"githubRepositoryContains": "", "githubActionContains": None}, "push", PUSH, True),
    ],
)
def test_the_filters_of_a_trigger_decide(
    api: Caller,
    github: GitHub,
    config: dict[str, Any],
    event: str,
    payload: dict[str, Any],
    matches: bool,
) -> None:
    path = published(api, "github", config)
    (found,) = github.events(payload, event=event)
    assert found["status"] == ("matched" if matches else "ignored")
    assert (found["reason"] is None) == matches
    assert len(runs_of(api, path)) == matches


def test_a_delivery_that_comes_again_is_answered_as_it_was(api: Caller, github: GitHub) -> None:
    one = published(api, "github")
    two = published(api, "github", {"githubEventType": "release"})
    first = github.events(PUSH, delivery="d-1")
    assert [event["status"] for event in first] == ["matched", "ignored"]
    assert github.events(PUSH, delivery="d-1") == first
    assert [len(runs_of(api, path)) for path in (one, two)] == [1, 0]
    assert len(data(api.get("metronomes/trigger-events"))) == 2
    assert github.events(PUSH, delivery="d-2") != first


def test_the_secret_decides_the_organization(
    api: Caller, other: Caller, github: GitHub, db: Database, nobody: Caller
) -> None:
    mine, theirs = published(api, "github"), published(other, "github")
    (event,) = github.events(PUSH, delivery="d-1")
    assert event["metronomeId"] == mine.removeprefix("metronomes/")
    assert runs_of(other, theirs) == []
    _hook(db, nobody, "evil").events(PUSH, delivery="d-1")
    assert len(runs_of(other, theirs)) == 1
    assert len(runs_of(api, mine)) == 1


@pytest.mark.parametrize("way", ["header", "query", "named", "named signature"])
def test_there_are_several_ways_to_prove_who_delivers(
    api: Caller, github: GitHub, way: str
) -> None:
    published(api, "github")
    options: dict[str, Any] = {
        "header": {"X_Computer_Agents_Webhook_Secret": github.secret},
        "query": {"query": f"?secret={github.secret}"},
        "named": {"query": f"?webhook={github.webhook_id}&secret={github.secret}"},
        "named signature": {"query": f"?webhook={github.webhook_id}"},
    }[way]
    (event,) = github.events(PUSH, **options)
    assert event["status"] == "matched"


WRONG = "sha256=" + "0" * 64


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"X_Hub_Signature_256": WRONG}, "invalid_signature"),
        ({"X_Hub_Signature_256": "sha256="}, "invalid_signature"),
        ({"X_Hub_Signature_256": "sha1=" + "0" * 40}, "invalid_signature"),
        ({"X_Hub_Signature_256": ""}, "invalid_signature"),
        ({"X_Hub_Signature_256": "sha256=" + "é" * 64}, "invalid_signature"),
        ({"X_Computer_Agents_Webhook_Secret": "x" * 40}, "invalid_signature"),
        ({"X_Computer_Agents_Webhook_Secret": "short"}, "invalid_signature"),
        ({"query": "?secret=whatever-it-may-be-this-is-long"}, "invalid_signature"),
        ({"Authorization": "Bearer something"}, "unsigned"),
    ],
)
def test_what_is_not_signed_is_refused_and_starts_nothing(
    api: Caller, github: GitHub, options: dict[str, Any], code: str
) -> None:
    path = published(api, "github")
    refused(github.send(PUSH, **options), 401, code)
    assert runs_of(api, path) == []
    assert data(api.get("metronomes/trigger-events")) == []


def test_a_wrong_signature_is_not_saved_by_the_right_secret(github: GitHub) -> None:
    answer = github.send(
        PUSH, X_Hub_Signature_256=WRONG, X_Computer_Agents_Webhook_Secret=github.secret
    )
    refused(answer, 401, "invalid_signature")


def test_a_body_that_was_changed_is_refused(github: GitHub) -> None:
    signature = github.sign(json.dumps(PUSH).encode())
    changed = PUSH | {"ref": "refs/heads/evil"}
    refused(github.send(changed, X_Hub_Signature_256=signature), 401, "invalid_signature")


def test_a_webhook_that_was_revoked_is_refused(api: Caller, github: GitHub, db: Database) -> None:
    webhooks.revoke(db, github.webhook_id)
    refused(github.send(PUSH), 401, "invalid_signature")
    refused(github.send(PUSH, query=f"?webhook={github.webhook_id}"), 401, "invalid_signature")
    answer = github.send(PUSH, X_Computer_Agents_Webhook_Secret=github.secret)
    refused(answer, 401, "invalid_signature")
    (event,) = data(api.get("metronomes/trigger-events"))  # where the webhook was named
    assert (event["status"], event["payload"]) == ("unauthorized", {})
    assert github.webhook_id in event["summary"]


def test_of_very_many_secrets_those_that_were_used_last_are_tried(
    github: GitHub, db: Database, nobody: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_TRIED", 2)
    with db.connect() as connection:
        connection.exec_driver_sql("UPDATE webhooks SET created_at = created_at - interval '1 h'")
    second = _hook(db, nobody, "acme")
    assert github.send(PUSH).status_code == 200
    third = _hook(db, nobody, "acme")
    with db.connect() as connection:
        # It was used in this minute, before the third one was made.
        connection.exec_driver_sql(
            "UPDATE webhooks SET created_at = created_at - interval '10 min' WHERE id = %s",
            (second.webhook_id,),
        )
    assert github.send(PUSH).status_code == 200
    assert third.send(PUSH).status_code == 200
    body = refused(second.send(PUSH), 401, "invalid_signature")
    assert "?webhook=ID" in body["message"]
    assert second.send(PUSH, query=f"?webhook={second.webhook_id}").status_code == 200
    wrong = github.send(PUSH, query=f"?webhook={second.webhook_id}", X_Hub_Signature_256=WRONG)
    assert "?webhook=ID" not in refused(wrong, 401, "invalid_signature")["message"]


def test_the_secret_of_another_webhook_is_refused(
    github: GitHub, db: Database, nobody: Caller
) -> None:
    second = _hook(db, nobody, "acme")
    query = f"?webhook={second.webhook_id}"
    refused(github.send(PUSH, query=query), 401, "invalid_signature")
    refused(github.send(PUSH, query=f"{query}&secret={github.secret}"), 401, "invalid_signature")


def test_a_refusal_is_recorded_where_the_webhook_is_named(
    api: Caller, other: Caller, github: GitHub
) -> None:
    path = published(api, "github")
    query = f"?webhook={github.webhook_id}"
    refused(github.send(PUSH, query=query, X_Hub_Signature_256=WRONG), 401, "invalid_signature")
    (event,) = data(api.get(f"{path}/trigger-events?status=unauthorized"))
    assert (event["payload"], event["runId"]) == ({}, None)
    assert github.webhook_id in event["summary"]
    (summary,) = data(api.get(f"{path}/trigger-summary"))
    assert (summary["unauthorizedCount"], summary["totalCount"]) == (1, 1)
    assert data(other.get("metronomes/trigger-events")) == []


def test_refusals_are_recorded_up_to_a_limit(api: Caller, github: GitHub, db: Database) -> None:
    query = f"?webhook={github.webhook_id}"
    for _ in range(REFUSALS_A_MINUTE + 5):
        refused(github.send({}, query=query, X_Hub_Signature_256=WRONG), 401, "invalid_signature")
    seen = data(api.get("metronomes/trigger-events?limit=100"))
    # A minute may have ended meanwhile.
    assert REFUSALS_A_MINUTE <= len(seen) <= REFUSALS_A_MINUTE + 5
    assert {event["metronomeId"] for event in seen} == {None}


def test_a_form_is_understood_too(api: Caller, github: GitHub) -> None:
    published(api, "github", {"githubPayloadContains": "Ship it"})
    body = urlencode({"payload": json.dumps(PUSH)}).encode()
    form = "application/x-www-form-urlencoded"
    (event,) = github.events(None, body=body, mimetype=form)
    assert event["status"] == "matched"


@pytest.mark.parametrize(
    ("body", "mimetype"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"", "application/json"),
        (b"\xff", "application/json"),
        (b'{"a": "\\u0000"}', "application/json"),
        (b'{"a": "\\ud800"}', "application/json"),
        (b'{"a": NaN}', "application/json"),
        (b'{"a": 123456789012345678901234567890}', "application/json"),
        (b'{"a": ' + b"[" * 100_0 + b"]" * 100_0 + b"}", "application/json"),
        (b"payload=%7B", "application/x-www-form-urlencoded"),
        (b"other=1", "application/x-www-form-urlencoded"),
        (b"payload=%ff", "application/x-www-form-urlencoded"),
        (b"\xff", "application/x-www-form-urlencoded"),
        (b"", "application/x-www-form-urlencoded"),
    ],
)
def test_a_payload_that_is_none_is_refused(
    api: Caller, github: GitHub, body: bytes, mimetype: str
) -> None:
    path = published(api, "github")
    sent = github.send(None, body=body, mimetype=mimetype, delivery="d-1")
    refusal = refused(sent, 400, "bad_request")
    assert runs_of(api, path) == []
    (event,) = data(api.get(f"{path}/trigger-events"))
    assert (event["status"], event["reason"]) == ("failed", refusal["message"])
    assert (event["payload"], event["sourceEventId"]) == ({}, "d-1")


def test_a_payload_that_is_none_is_recorded_where_nobody_listens(
    api: Caller, github: GitHub
) -> None:
    refused(github.send(None, body=b'{"a": "\\u0000"}'), 400, "bad_request")
    (event,) = data(api.get("metronomes/trigger-events"))
    assert (event["status"], event["metronomeId"]) == ("failed", None)
    wrong = {"X_Hub_Signature_256": WRONG}
    refused(github.send(None, body=b"{", **wrong), 401, "invalid_signature")
    assert len(data(api.get("metronomes/trigger-events"))) == 1


@pytest.mark.parametrize("options", [{"event": ""}, {"event": "a b"}, {"delivery": "ä"}])
def test_headers_that_say_nothing_are_refused(github: GitHub, options: dict[str, str]) -> None:
    refused(github.send(PUSH, **options), 400, "bad_request")  # type: ignore[arg-type]


def test_a_body_that_is_too_big_is_refused_before_it_is_read(github: GitHub) -> None:
    big = {"a": "x" * 200_000}
    refused(github.send(big, X_Hub_Signature_256=WRONG), 413, "body_too_large")


def test_a_ping_starts_nothing(api: Caller, github: GitHub) -> None:
    path = published(api, "github")
    (event,) = github.events({"zen": "Keep it logically awesome."}, event="ping")
    assert (event["status"], event["metronomeId"]) == ("ignored", None)
    assert runs_of(api, path) == []


def test_two_webhooks_can_not_have_one_secret(github: GitHub, db: Database) -> None:
    from app.domain.errors import Conflict, Invalid

    with pytest.raises(Conflict):
        _hook(db, github.caller, "evil", secret=github.secret)
    with pytest.raises(Invalid):
        _hook(db, github.caller, "evil", secret="short")
