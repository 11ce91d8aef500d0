from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.outcomes import AwaitApproval, Done, Failed
from tests.nodes.conftest import STARTED

Run = Callable[..., Any]
SCOPE = {"trigger": {"input": {"n": 5, "who": "Ada"}}}
ASKED = {"title": "Send it?", "message": None}
TOLD = {"comment": "fine", "userId": "u-1", "keyId": "k-1", "decidedAt": "2026-01-01T00:00:01Z"}
DECIDED = {"comment": "fine", "decidedBy": "u-1", "decidedAt": "2026-01-01T00:00:01Z"}


@pytest.mark.parametrize(
    ("config", "until", "shown"),
    [
        ({}, None, {"title": "Check", "message": None}),
        (
            {"title": "Pay {{ trigger.input.n }}?", "message": "For {{ trigger.input.who }}"},
            None,
            {"title": "Pay 5?", "message": "For Ada"},
        ),
        (
            {"title": "{{ trigger.input.n }}", "deadlineSeconds": "{{ trigger.input.n }}"},
            STARTED + timedelta(seconds=5),
            {"title": "5", "message": None, "deadline": "2026-01-01T00:00:05.000000Z"},
        ),
        (
            {"deadline": "2027-01-01T01:00:00+01:00", "deadlineSeconds": None},
            datetime(2027, 1, 1, tzinfo=UTC),
            {"title": "Check", "message": None, "deadline": "2027-01-01T00:00:00.000000Z"},
        ),
    ],
)
def test_an_approval_asks_and_waits(
    run: Run, lacks: Run, config: dict[str, Any], until: datetime | None, shown: dict[str, Any]
) -> None:
    assert lacks("approval", config) == []
    assert run("approval", config, SCOPE, label="Check") == AwaitApproval(until, shown)


def test_an_approval_without_a_title_or_label_is_called_by_its_node(run: Run) -> None:
    assert run("approval", {}).output["title"] == "node-1"


def test_a_deadline_that_a_binding_spoils_fails_the_node(run: Run) -> None:
    for config in ({"deadlineSeconds": "{{ trigger.input.who }}"}, {"deadline": "9999-01-01"}):
        outcome = run("approval", config, SCOPE)
        assert isinstance(outcome, Failed)
        assert not outcome.retryable


@pytest.mark.parametrize("handles", [(), ("approved",), ("approved", "rejected")])
def test_an_approval_that_is_given_goes_on(resume: Run, handles: tuple[str, ...]) -> None:
    outcome = resume("approval", {}, {"decision": "approved", **TOLD}, ASKED, handles=handles)
    assert outcome == Done({**ASKED, "decision": "approved", **DECIDED}, branch="approved")


def test_a_rejection_takes_its_edge(resume: Run) -> None:
    outcome = resume("approval", {}, {"decision": "rejected", **TOLD}, ASKED, handles=("rejected",))
    assert outcome == Done({**ASKED, "decision": "rejected", **DECIDED}, branch="rejected")


@pytest.mark.parametrize(
    ("comment", "error"),
    [("too dear", "Rejected by u-1: too dear"), (None, "Rejected by u-1, without a comment")],
)
def test_a_rejection_without_an_edge_fails_for_good(
    resume: Run, comment: str | None, error: str
) -> None:
    told = {**TOLD, "decision": "rejected", "comment": comment}
    outcome = resume("approval", {}, told, ASKED, handles=("approved", "error"))
    assert outcome.error == error
    assert not outcome.retryable
    assert outcome.output == {**ASKED, "decision": "rejected", **DECIDED, "comment": comment}


def test_what_is_no_decision_is_no_approval(resume: Run) -> None:
    assert isinstance(resume("approval", {}, {}, ASKED), Failed)


@pytest.mark.parametrize("wanted", [None, "fail"])
def test_nobody_in_time_fails_the_node(resume: Run, wanted: str | None) -> None:
    parked = {**ASKED, "deadline": "2026-01-01T00:00:05Z"}
    outcome = resume("approval", {"onDeadline": wanted}, None, parked, handles=("rejected",))
    assert outcome.error == "Nobody decided before the deadline, 2026-01-01T00:00:05Z."
    assert not outcome.retryable
    assert outcome.output == {**parked, "byDeadline": True}


@pytest.mark.parametrize(("wanted", "decision"), [("approve", "approved"), ("reject", "rejected")])
def test_the_deadline_may_decide(resume: Run, wanted: str, decision: str) -> None:
    parked = {**ASKED, "deadline": "2026-01-01T00:00:01Z"}
    outcome = resume(
        "approval", {"onDeadline": wanted}, None, parked, waited_ms=1500, handles=("rejected",)
    )
    assert outcome == Done(
        {
            **parked,
            "byDeadline": True,
            "decision": decision,
            "comment": None,
            "decidedBy": None,
            "decidedAt": "2026-01-01T00:00:01.500000Z",
        },
        branch=decision,
    )


def test_a_rejection_by_the_deadline_needs_an_edge_as_well(resume: Run) -> None:
    outcome = resume("approval", {"onDeadline": "reject"}, None, ASKED)
    assert isinstance(outcome, Failed)
    assert "Rejected by the deadline" in outcome.error


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"title": 5}, "config.title"),
        ({"title": "{{ ( }}"}, "config.title"),
        ({"message": {"a": 1}}, "config.message"),
        ({"deadline": "soon"}, "config.deadline"),
        ({"deadline": 5}, "config.deadline"),
        ({"deadlineSeconds": -1}, "config.deadlineSeconds"),
        ({"deadlineSeconds": 5, "deadline": "2030-01-01"}, "config"),
        ({"onDeadline": "panic"}, "config.onDeadline"),
        ({"onDeadline": ["fail"]}, "config.onDeadline"),
    ],
)
def test_a_bad_config_is_named(faults: Run, config: dict[str, Any], field: str) -> None:
    assert faults("approval", config) == [field]


def test_an_edge_names_a_decision(faults: Run) -> None:
    assert faults("approval", {}, ("", "approved", "rejected", "error")) == []
    assert faults("approval", {}, ("yes",)) == ["handles.yes"]
