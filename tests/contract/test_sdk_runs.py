"""The published SDK on what runs leave behind, and on test runs, with an executor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from computer_agents import ApiClientError

from tests.contract.test_sdk_versions import workflow


def test_a_run_leaves_a_trace_a_result_and_a_timeline(sdk: Any, ended: Callable[..., Any]) -> None:
    made = sdk.create(name="n", definition=workflow())["id"]
    run = sdk.run(made, input={"name": "Ada"})["id"]
    with pytest.raises(ApiClientError) as early:
        sdk.get_run_result(made, run)
    assert (early.value.status, early.value.code) == (409, "run_not_ended")
    assert ended(made, run)["status"] == "completed"
    result = sdk.get_run_result(made, run)
    assert result["data"]["output"] == {"text": "Hello Ada"}
    steps = sdk.list_run_steps(made, run)
    assert [step["nodeId"] for step in steps] == ["start", "greet", "finish"]

    timeline = sdk.get_run_timeline(made, run)
    assert timeline["run"]["id"] == run
    assert timeline["triggerEvent"] is None
    assert timeline["steps"] == steps
    assert [one["action"] for one in timeline["auditEvents"]] == ["run.created"]
    compact = sdk.get_run_timeline(made, run, view="compact")
    assert [one["nodeId"] for one in compact["steps"]] == ["start", "greet", "finish"]
    assert "Ada" not in str(compact)

    audit = sdk.list_audit_events(metronome_id=made)
    assert {"run.created", "metronome.created"} <= {one["action"] for one in audit}
    (created,) = sdk.list_audit_events(action="metronome.created")
    assert (created["metronomeId"], created["actorUserId"]) == (made, "admin")
    assert len(sdk.list_audit_events(limit=1)) == 1


def test_a_draft_is_tried_out(sdk: Any, ended: Callable[..., Any]) -> None:
    made = sdk.create(name="n", definition=workflow())["id"]
    sdk.publish(made)
    sdk.update(made, definition=workflow("Bye {{ trigger.input.name }}"))
    tried = sdk.test_run(made, inputs={"name": "Ada"})
    assert tried["triggerType"] == "manual_test"
    inline = sdk.test_run(made, input={}, definition=workflow("Hi"), idempotency_key="once")
    assert sdk.test_run(made, input={}, definition=workflow("Hi"), idempotency_key="once") == inline
    ended(made, tried["id"])
    assert sdk.get_run_result(made, tried["id"])["data"]["output"] == {"text": "Bye Ada"}
    ended(made, inline["id"])
    assert sdk.get_run_result(made, inline["id"])["data"]["output"] == {"text": "Hi"}
    assert len(sdk.list_versions(made)) == 1


def test_a_node_is_tried_out_alone(sdk: Any, ended: Callable[..., Any]) -> None:
    made = sdk.create(name="n", definition=workflow())["id"]
    one = {"selection": {"nodeIds": ["greet"]}, "fixture": {"input": {"name": "Ada"}}}
    preview = sdk.preview_test_run(made, **one)
    assert preview["valid"] is True
    assert sdk.list_runs(made) == []
    run = sdk.run_test(made, **one)
    assert run["triggerType"] == "manual_test"
    assert ended(made, run["id"])["status"] == "completed"
    steps = {step["nodeId"]: step for step in sdk.list_run_steps(made, run["id"])}
    assert steps["greet"]["output"] == {"text": "Hello Ada"}
    assert "finish" not in steps
