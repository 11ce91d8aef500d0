"""Triggers that are tried out, or called, where that needs a word of explanation."""

from __future__ import annotations

import pytest

from tests.api.conftest import Caller, data, refused
from tests.api.definitions import called


@pytest.mark.parametrize("trigger_type", ["email", "github", "function"])
def test_a_sample_that_no_trigger_is_for_runs_and_does_not_match(
    api: Caller, trigger_type: str
) -> None:
    path = api.new_metronome()
    found = data(api.post(f"{path}/triggers/test", {"triggerType": trigger_type}), 201)
    assert found["matched"] is False
    assert found["mismatch"] == f"there is no trigger of the type {trigger_type}"
    assert found["run"]["triggerType"] == trigger_type


@pytest.mark.parametrize("sent", [{}, {"triggerType": "manual"}, {"triggerType": "manual_test"}])
def test_a_trial_by_hand_needs_no_trigger_of_its_own(api: Caller, sent: dict[str, str]) -> None:
    found = data(api.post(f"{api.new_metronome()}/triggers/test", sent), 201)
    assert (found["matched"], found["mismatch"]) == (True, None)


def test_who_calls_a_paused_workflow_is_told_what_to_do(api: Caller) -> None:
    path = api.new_metronome(called("go"))
    data(api.post(f"{path}/publish", {}))
    data(api.patch(path, {"status": "paused"}))
    told = refused(api.post(f"{path}/triggers/function/go", {}), 409, "metronome_paused")
    assert "set its status to active" in told["message"]
    data(api.patch(path, {"status": "active"}))
    data(api.post(f"{path}/triggers/function/go", {}), 201)


def test_a_call_is_not_answered_with_a_run_of_another_kind(api: Caller) -> None:
    path = api.new_metronome(called("go"))
    data(api.post(f"{path}/publish", {}))
    for where in ("runs", "test-run"):
        data(api.post(f"{path}/{where}", {"idempotencyKey": where}), 201)
        call = api.post(f"{path}/triggers/function/go", {"idempotencyKey": where})
        told = refused(call, 422, "idempotency_key_reused")
        assert told["details"].keys() == {"idempotencyKey"}
    data(api.post(f"{path}/triggers/function/go", {"idempotencyKey": "k"}), 201)
    assert data(api.post(f"{path}/triggers/function/go", {"idempotencyKey": "k"}))
    refused(
        api.post(f"{path}/triggers/test", {"idempotencyKey": "k"}), 422, "idempotency_key_reused"
    )
