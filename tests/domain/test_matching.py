"""Filters of triggers against payloads in the shapes in which they come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.matching import FILTERS, mismatch

Payload = dict[str, Any]


def matches(trigger_type: str, config: Payload, payload: Payload) -> bool:
    """Whether the event is what the trigger waits for."""
    return mismatch(trigger_type, config, payload, str(payload)) is None


@pytest.mark.parametrize(
    ("trigger_type", "config", "payload"),
    [
        ("email", {"emailAddress": "a@b.org"}, {"to": "A@B.org"}),
        ("email", {"emailAddress": "a@b.org"}, {"to": [{"address": "a@b.org", "name": "A"}]}),
        ("email", {"emailAddress": "a@b.org"}, {"to": [{"email": "a@b.org"}], "cc": "c@d.org"}),
        ("email", {"emailLocalPart": "orders"}, {"recipients": ["Shop <Orders@b.org>"]}),
        ("email", {"emailAddress": "a@b.org"}, {"to": '"B, C" <b@b.org>, A <A@b.org>'}),
        ("email", {"emailAddress": "a@b.org"}, {"to": "x@b.org, y@b.org,\r\n a@b.org"}),
        ("email", {"emailAddress": "A <a@b.org>"}, {"cc": "shop: c@b.org, a@b.org;"}),
        ("email", {"emailLocalPart": "orders"}, {"to": ["c@d.org", "A <a@b.org>, orders@b.org"]}),
        ("email", {"emailLocalPart": "orders"}, {"localPart": "Orders"}),
        ("email", {"fromContains": "b.org"}, {"from": {"name": "A", "email": "a@b.org"}}),
        ("email", {"bodyContains": "PLEASE"}, {"html": "<p>please</p>"}),
        ("telegram", {"telegramCommand": "/start"}, {"message": {"text": "/start@some_bot x"}}),
        ("telegram", {"telegramCommand": "/start"}, {"command": "/start"}),
        ("telegram", {"telegramChatId": -100}, {"message": {"chat": {"id": -100}}}),
        ("telegram", {"telegramFromContains": "ad"}, {"message": {"from": {"username": "Ada"}}}),
        ("telegram", {"telegramMessageContains": "now"}, {"text": "do it NOW"}),
        ("thread_event", {"threadCommand": "/go"}, {"message": {"content": " /go on"}}),
        ("thread_event", {"threadCommand": ["/stop", "/go"]}, {"text": "/go"}),
        ("github", {"githubBranchContains": "main"}, {"workflow_run": {"head_branch": "main"}}),
        ("github", {"githubBranchContains": "main"}, {"branches": [{"name": "main"}]}),
        ("github", {"githubBranchContains": "main"}, {"workflow_job": {"head_branch": "main"}}),
        (
            "github",
            {"githubBranchContains": "main"},
            {"check_run": {"pull_requests": [{"base": {"ref": "main"}}]}},
        ),
        (
            "github",
            {"githubBranchContains": "fix"},
            {"check_run": {"pull_requests": [{"head": {"ref": "fix-1"}}]}},
        ),
        ("github", {"githubBranchContains": "main"}, {"action": "deploy", "branch": "main"}),
        (
            "github",
            {"githubBranchContains": "main"},
            {"ref": "refs/tags/v1", "base_ref": "refs/heads/main"},
        ),
        ("project_ticket", {"ticketToStatus": "done"}, {"status": "done"}),
        ("project_ticket", {"ticketToStatus": "done"}, {"ticket": {"status": "Done"}}),
        (
            "project_ticket",
            {"ticketToStatus": "done"},
            {"toStatus": None, "ticket": {"status": "done"}},
        ),
        ("github", {"githubEventType": "PUSH"}, {"githubEvent": "push"}),
        ("project_ticket", {"ticketFromStatus": "Open"}, {"changes": {"status": {"from": "open"}}}),
        ("project_ticket", {"ticketCommentContains": "ship"}, {"comment": {"body": "Ship it"}}),
        (
            "resource",
            {"resourceId": "r1", "resourceKind": "Function"},
            {"resource": {"id": "r1", "kind": "function"}},
        ),
        ("database_entry", {"databaseEventType": "document_created"}, {}),
        ("auth", {"authEventType": "user_registered"}, {"eventType": "user_registered"}),
        ("email", {"subjectContains": " "}, {}),
        ("email", {"subjectContains": None}, {}),
        ("function", {"slug": "x"}, {}),
        ("anything", {"subjectContains": "x"}, {}),
    ],
)
def test_what_matches(trigger_type: str, config: Payload, payload: Payload) -> None:
    assert matches(trigger_type, config, payload)


@pytest.mark.parametrize(
    ("trigger_type", "config", "payload"),
    [
        ("email", {"emailAddress": "a@b.org"}, {"to": "aa@b.org"}),
        ("email", {"emailLocalPart": "orders"}, {"to": "orders2@b.org"}),
        ("email", {"subjectContains": "order"}, {"body": "order"}),
        ("telegram", {"telegramCommand": "/start"}, {"text": "/started"}),
        ("telegram", {"telegramCommand": "/start"}, {"text": "please /start"}),
        ("telegram", {"telegramChatId": "1"}, {"chat": {"id": 12}}),
        ("resource", {"resourceId": "R1"}, {"resourceId": "r1"}),
        ("resource", {"resourceName": "site"}, {"resourceName": "site 2"}),
        ("auth", {"authEventType": "user_registered"}, {"eventType": "user_deleted"}),
        ("project_ticket", {"ticketToStatus": "done"}, {"toStatus": True}),
        (
            "project_ticket",
            {"ticketToStatus": "open"},
            {"toStatus": "done", "status": "open", "ticket": {"status": "open"}},
        ),
        (
            "project_ticket",
            {"ticketToStatus": "open"},
            {"changes": {"status": {"to": "done"}}, "ticket": {"status": "open"}},
        ),
        ("email", {"emailAddress": "a@b.org"}, {"to": '"a@b.org" <c@d.org>, e@b.org'}),
        ("email", {"emailLocalPart": "orders"}, {"to": "(" * 5_000 + "orders@b.org"}),
        ("github", {"githubPayloadContains": "nowhere"}, {"a": 1}),
        ("email", {"subjectContains": "a", "bodyContains": "b"}, {"subject": "a", "body": "c"}),
    ],
)
def test_what_does_not_match(trigger_type: str, config: Payload, payload: Payload) -> None:
    reason = mismatch(trigger_type, config, payload, str(payload))
    assert reason is not None
    assert any(name in reason for name in config)


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ('say "hi"', True),
        ("müller", True),
        ("two\nlines", True),
        ("ada", True),
        ("release", False),
        ("d-17", False),
    ],
)
def test_a_payload_is_searched_as_it_came_and_as_it_is_meant(wanted: str, matches: bool) -> None:
    payload = {
        "text": ['He may say "hi", Müller', {"body": "two\nlines"}],
        "who": "Ada",
        "githubEvent": "release",
        "githubDelivery": "d-17",
    }
    came = json.dumps({name: payload[name] for name in ("text", "who")})
    reason = mismatch("github", {"githubPayloadContains": wanted}, payload, came)
    assert (reason is None) == matches


def test_a_reason_is_short_whatever_the_payload_holds() -> None:
    reason = mismatch("email", {"subjectContains": "x" * 9_000}, {"subject": "y" * 9_000}, "")
    assert reason is not None
    assert len(reason) < 1_000


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_NAMES = sorted(
    {path.split(".")[0] for some in FILTERS.values() for one in some for path in one.paths}
)


@given(
    st.sampled_from(sorted(FILTERS)),
    st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=4),
    _JSON,
)
def test_no_payload_and_no_filter_is_too_odd(
    trigger_type: str, payload: Payload, wanted: Any
) -> None:
    for one in FILTERS[trigger_type]:
        mismatch(trigger_type, {one.field: wanted}, payload, "")
