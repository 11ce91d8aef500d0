"""The published SDK, unchanged, against a live API, without an executor."""

from __future__ import annotations

from typing import Any

import pytest

DEFINITION = {
    "nodes": [{"id": "start", "kind": "trigger"}, {"id": "finish", "kind": "end"}],
    "edges": [{"id": "e1", "source": "start", "target": "finish"}],
}


def test_workflows(sdk: Any) -> None:
    made = sdk.create(name="n", definition=DEFINITION, description="d", trigger_summary="t")
    assert made["definition"] == DEFINITION
    assert sdk.get(made["id"]) == made
    assert sdk.list() == [made]
    assert sdk.list(limit=1, offset=1, status="draft", include_archived=True) == []
    assert sdk.update(made["id"], name="m", trigger_summary="u")["triggerSummary"] == "u"
    assert sdk.upsert(name="o", metronome_id=made["id"], status="active")["status"] == "active"
    other = sdk.upsert(name="p")
    assert [one["name"] for one in sdk.list()] == ["p", "o"]
    assert sdk.delete(other["id"]) is True
    assert [one["name"] for one in sdk.list(include_archived=False)] == ["o"]


def test_runs(sdk: Any) -> None:
    metronome = sdk.create(name="n", definition=DEFINITION)["id"]
    run = sdk.run(
        metronome,
        input={"a": 1},
        idempotency_key="k",
        max_attempts=2,
        timeout_ms=1_000,
        attached_project_id="p",
        queue_when_capacity_unavailable=True,
        pinned_agent_versions={"a": "v1"},
    )
    assert (run["status"], run["input"]) == ("queued", {"a": 1})
    assert sdk.run(metronome, inputs={}, idempotency_key="k") == run
    second = sdk.run(metronome)
    assert sdk.get_run(metronome, run["id"]).items() >= run.items()
    assert "input" not in sdk.get_run(metronome, run["id"], view="compact")
    assert sdk.list_runs(metronome) == [second, run]
    assert sdk.list_runs(metronome, limit=1, offset=1) == [run]
    assert sdk.list_runs(metronome, limit=0) == []
    assert sdk.list_runs(metronome, status="queued", search="k", project_id="p") == [run]
    changed = sdk.update_run(metronome, second["id"], attached_ticket_id="t")
    assert changed["attachedTicketId"] == "t"
    assert sdk.list_runs(metronome, ticket_id="t") == [changed]
    assert sdk.list_run_steps(metronome, run["id"]) == []
    cancelled = sdk.cancel_run(metronome, run["id"])
    assert cancelled["status"] == "cancelled"
    assert sdk.cancel_run(metronome, run["id"]) == cancelled
    assert sdk.delete_run(metronome, run["id"]) is True
    assert sdk.list_runs(metronome) == [changed]


def test_what_is_asked_of_a_run(sdk: Any) -> None:
    from computer_agents import ApiClientError

    metronome = sdk.create(name="n", definition=DEFINITION)["id"]
    run = sdk.run(metronome)["id"]
    assert sdk.pause_run(metronome, run)["status"] == "paused"
    assert sdk.pause_run(metronome, run)["status"] == "paused"
    with pytest.raises(ApiClientError, match="the run is paused") as paused:
        sdk.retry_run(metronome, run)
    assert (paused.value.status, paused.value.code) == (409, "not_retryable")
    assert sdk.resume_run(metronome, run)["status"] == "queued"
    assert sdk.resume_run(metronome, run, confirm_in_doubt_replay=True)["status"] == "queued"
    sdk.pause_run(metronome, run)
    assert sdk.resume_run(metronome, run, confirm_in_doubt_replay=False)["status"] == "queued"
    sdk.cancel_run(metronome, run)
    assert sdk.pause_run(metronome, run)["status"] == "cancelled"
    with pytest.raises(ApiClientError, match="the run is cancelled") as ended:
        sdk.resume_run(metronome, run)
    assert (ended.value.status, ended.value.code) == (409, "run_ended")
    assert ended.value.details == {"status": "cancelled"}
    retried = sdk.retry_run(metronome, run)
    assert (retried["status"], retried["completedAt"]) == ("queued", None)


def test_errors_say_what_is_wrong(sdk: Any) -> None:
    from computer_agents import ApiClientError

    with pytest.raises(ApiClientError, match="metronome or run not found") as unknown:
        sdk.cancel_run("met_1", "run_1")
    assert (unknown.value.status, unknown.value.code) == (404, "run_not_found")
    with pytest.raises(ApiClientError, match="nodes") as invalid:
        sdk.create(name="n", definition={"nodes": {}, "edges": []})
    assert invalid.value.status == 422
    assert "definition.nodes" in (invalid.value.details or {})
    metronome = sdk.create(name="n", definition=DEFINITION)["id"]
    run = sdk.run(metronome)["id"]
    with pytest.raises(ApiClientError, match="cancel it") as active:
        sdk.delete_run(metronome, run)
    assert (active.value.status, active.value.code) == (409, "run_active")
