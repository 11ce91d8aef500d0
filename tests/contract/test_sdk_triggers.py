"""The published SDK on triggers: each of its trigger classes, tried and delivered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from computer_agents import ApiClientError
from computer_agents.resources.metronomes import (
    AuthEventTriggerNode,
    DatabaseEntryTriggerNode,
    EmailTriggerNode,
    EndNode,
    GitHubTriggerNode,
    MetronomeEdge,
    MetronomeWorkflow,
    PeriodicScheduleTriggerNode,
    ProjectTicketTriggerNode,
    ResourceDeploymentTriggerNode,
    TelegramTriggerNode,
    ThreadEventTriggerNode,
    TriggerNode,
)


def started_by(trigger: TriggerNode) -> MetronomeWorkflow:
    """A workflow with this trigger."""
    return MetronomeWorkflow(
        name="n",
        nodes=[trigger, EndNode("finish")],
        edges=[MetronomeEdge("e1", trigger.id, "finish")],
    )


TRIGGERS = [
    ThreadEventTriggerNode("t", command="/go", attachments=[]),
    PeriodicScheduleTriggerNode("t", scheduled_time="2099-01-01T00:00:00Z"),
    PeriodicScheduleTriggerNode(
        "t",
        schedule_type="recurring",
        cron_expression="0 9 * * 1-5",
        schedule_timezone="Europe/Berlin",
    ),
    EmailTriggerNode("t", subject_contains="invoice"),
    TelegramTriggerNode("t", command="/go"),
    GitHubTriggerNode("t", event_type="push", repository_contains="acme/"),
    ProjectTicketTriggerNode("t", to_status="done"),
    ResourceDeploymentTriggerNode("t", resource_kind="function"),
    DatabaseEntryTriggerNode("t", collection="orders"),
    AuthEventTriggerNode("t", email_contains="@example.com"),
]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: str(trigger.subtype))
def test_each_class_of_triggers_can_be_published_and_tried(sdk: Any, trigger: TriggerNode) -> None:
    made = sdk.create(name="n", definition=started_by(trigger))["id"]
    assert sdk.publish(made)["status"] == "active"
    tried = sdk.test_trigger(
        made,
        trigger_type=str(trigger.subtype),
        payload={"a": 1},
        source_event_id="source",
        summary="s",
        max_attempts=2,
        timeout_ms=1_000,
        attached_project_id="p",
        attached_ticket_id="t",
    )
    event, run = tried["triggerEvent"], tried["run"]
    assert (event["status"], event["runId"], event["summary"]) == ("matched", run["id"], "s")
    assert (run["triggerType"], run["triggerEventId"]) == (trigger.subtype, event["id"])
    assert (run["input"], run["maxAttempts"], run["timeoutMs"]) == ({"a": 1}, 2, 1_000)
    assert [one["id"] for one in sdk.list_trigger_events(made)] == [event["id"]]


def test_a_function_trigger_starts_the_published_workflow(
    sdk: Any, ended: Callable[..., Any]
) -> None:
    trigger = TriggerNode("t", "function", slug="orders")
    made = sdk.create(name="n", definition=started_by(trigger))["id"]
    with pytest.raises(ApiClientError) as unpublished:
        sdk.invoke_function_trigger(made, "orders")
    assert unpublished.value.status in (404, 409)
    sdk.publish(made)
    first = sdk.invoke_function_trigger(made, "orders", payload={"n": 1}, source_event_id="o1")
    again = sdk.invoke_function_trigger(made, "orders", payload={"n": 1}, source_event_id="o1")
    assert again["run"]["id"] == first["run"]["id"]
    other = sdk.invoke_function_trigger(made, "orders", payload={"n": 2}, idempotency_key="k")
    assert other["run"]["id"] != first["run"]["id"]
    with pytest.raises(ApiClientError) as unknown:
        sdk.invoke_function_trigger(made, "refunds")
    assert unknown.value.status == 404
    done = ended(made, first["run"]["id"])
    assert (done["status"], done["input"], done["triggerType"]) == (
        "completed",
        {"n": 1},
        "function",
    )
    assert sdk.get_run_timeline(made, done["id"])["triggerEvent"]["sourceEventId"] == "o1"
    (summary,) = sdk.list_trigger_summaries(made)
    assert (summary["triggerType"], summary["matchedCount"]) == ("function", 2)
    assert summary["lastRunId"] == other["run"]["id"]
    assert summary["lastMatchedEvent"]["runId"] == other["run"]["id"]
    assert sdk.list_trigger_summaries(made, limit=1) == [summary]
    assert len(sdk.list_all_trigger_events(limit=1)) == 1
    everything = sdk.list_all_trigger_events(status="matched", trigger_type="function")
    assert [one["runId"] for one in everything] == [other["run"]["id"], first["run"]["id"]]
    assert sdk.list_trigger_events(made, limit=5, status="failed", trigger_type="github") == []
