from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.outcomes import AwaitCallback, Done, Failed, Interrupted, Outcome
from app.domain.shape import check_shape
from app.domain.stop import StopSignal
from app.nodes import REGISTRY
from app.nodes.base import NodeLimits
from tests.connectors import OTHER_SECRET, SECRET, Example, Receiver, connector
from tests.nodes.conftest import context_of, header
from tests.processes import free_port

Run = Callable[..., Any]
SCOPE: dict[str, Any] = {
    "trigger": {"input": {"files": ["a.csv"], "q": 'the "best" one'}},
    "steps": {"rows": {"output": {"records": [{"n": 1}]}}},
}


def dispatch(
    kind: str, config: dict[str, Any], url: str, *, token: str | None = "token-1", **more: Any
) -> Outcome:
    """Run a remote node whose connector is at ``url``."""
    changes = {
        name: more.pop(name)
        for name in ("secret", "timeout_ms", "callback_timeout_ms", "heartbeat_ms")
        if name in more
    }
    limits = {"connectors": {kind: connector(url, kind, **changes)}, "public_url": "http://api"}
    subtype = more.pop("subtype", None)
    context = context_of(kind, config, SCOPE, **{**limits, **more})
    context = replace(
        context, callback_token=token, node_subtype=subtype, started_at=datetime.now(UTC)
    )
    return REGISTRY[kind].run(context)


def test_the_connector_gets_the_whole_order_signed(receiver: Receiver) -> None:
    config = {
        "message": "Find {{ trigger.input.q }}",
        "agentId": None,
        "outputKey": "thread",
        "timeoutMs": 60_000,
        "retry": {"maxAttempts": 3},
        "inputBinding": "trigger.input.files",
        "inputBindings": {"rows": "steps.rows.output.records"},
    }
    receiver.answer = lambda event: (200, b'{"text": "done"}')
    outcome = dispatch("action", config, receiver.url, subtype="start_thread", label="Ask")
    assert outcome == Done({"text": "done"})
    (event,), (headers,) = receiver.events, receiver.headers
    deadline = event["callback"].pop("deadline")
    assert event == {
        "type": "node.dispatched",
        "runId": "run-1",
        "metronomeId": "metronome-1",
        "organizationId": "org-1",
        "stepId": "step-1",
        "nodeId": "node-1",
        "nodeKind": "action",
        "subtype": "start_thread",
        "label": "Ask",
        "attempt": 1,
        "idempotencyKey": "key-1",
        "config": {"message": 'Find the "best" one'},
        "input": ["a.csv"],
        "bindings": {"rows": [{"n": 1}]},
        "callback": {
            "url": "http://api/v1/metronomes/metronome-1/runs/run-1/steps/step-1",
            "token": "token-1",
        },
    }
    # The node's own timeoutMs is shorter than what the connector has.
    assert datetime.fromisoformat(deadline) - datetime.now(UTC) < timedelta(seconds=61)
    assert headers["webhook-id"] == "step-1"
    assert headers["idempotency-key"] == "key-1"


def test_the_secret_signs_and_no_other_does(receiver: Receiver) -> None:
    dispatch("firecrawl", {}, receiver.url, secret=OTHER_SECRET)
    assert receiver.events[0]["type"] == "forged"


def test_a_node_without_input_binding_gets_the_input_of_the_run(receiver: Receiver) -> None:
    config = {
        "collection": "people",
        "documentJson": '{"q": "{{ trigger.input.q }}", "files": "{{ trigger.input.files }}"}',
        "documentTemplate": {"n": "{{ record.n }}"},
        "recordsBinding": "{{ steps.rows.output.records }}",
    }
    dispatch("database", config, receiver.url, subtype="insert_document")
    (event,) = receiver.events
    assert event["input"] == SCOPE["trigger"]["input"]
    assert event["bindings"] == {"records": [{"n": 1}]}
    assert event["config"]["documentTemplate"] == {"n": "{{ record.n }}"}
    assert json.loads(event["config"]["documentJson"]) == SCOPE["trigger"]["input"]


def test_the_trace_keeps_what_was_sent() -> None:
    config = {"query": "{{ trigger.input.q }}", "inputBinding": "trigger.input.files", "limit": 5}
    bound = REGISTRY["firecrawl"].bind(config, SCOPE)
    assert bound == {"config": {"query": 'the "best" one', "limit": 5}, "input": ["a.csv"]}
    assert REGISTRY["firecrawl"].record(bound) == bound


@pytest.mark.parametrize("body", [b"", b"{}"])
def test_an_empty_answer_is_an_empty_output(receiver: Receiver, body: bytes) -> None:
    receiver.answer = lambda event: (201, body)
    assert dispatch("ticket", {}, receiver.url) == Done({})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>", "is no JSON"),
        (b"[1]", "is no JSON object"),
        (b'{"a": "\\u0000"}', "output.a holds a NUL"),
        (b'{"a": "%s"}' % (b"x" * 2000), "bigger than 1,000 bytes"),
    ],
)
def test_an_answer_that_can_not_be_kept_fails_for_good(
    receiver: Receiver, body: bytes, error: str
) -> None:
    receiver.answer = lambda event: (200, body)
    outcome = dispatch("ticket", {}, receiver.url, output_max_bytes=1000)
    assert isinstance(outcome, Failed)
    assert error in outcome.error
    assert not outcome.retryable


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        *((status, False) for status in (203, 302, 400, 401, 404, 422)),
        *((status, True) for status in (408, 425, 429, 500, 503)),
    ],
)
def test_a_refusal_says_so_and_whether_to_try_again(
    receiver: Receiver, status: int, retryable: bool
) -> None:
    receiver.answer = lambda event: (status, b'{"error": "no such agent"}')
    outcome = dispatch("action", {}, receiver.url)
    assert isinstance(outcome, Failed)
    assert outcome.retryable is retryable
    assert f"HTTP {status}" in outcome.error
    assert ("redirects" if status == 302 else "no such agent") in outcome.error
    assert outcome.output == {"status": status, "body": '{"error": "no such agent"}'}


def test_a_redirect_is_not_followed(serve: Run, answer: Run) -> None:
    target = serve(answer(200, b"{}"))
    server = serve(answer(307, b"", Location=target.url))
    assert isinstance(dispatch("action", {}, server.url), Failed)
    assert target.requests == []


def test_a_connector_that_is_not_there_can_be_tried_again() -> None:
    outcome = dispatch("imagine", {}, f"http://127.0.0.1:{free_port()}")
    assert isinstance(outcome, Failed)
    assert outcome.retryable
    assert "connector imagine did not answer: Connection refused" in outcome.error


@pytest.mark.parametrize(
    "broken", [b"", b"SSH-2.0-server\r\n", b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{}"]
)
def test_a_broken_answer_can_be_tried_again(serve: Run, broken: bytes) -> None:
    outcome = dispatch("imagine", {}, serve(broken).url)
    assert isinstance(outcome, Failed)
    assert outcome.retryable


def test_a_slow_answer_times_out(serve: Run) -> None:
    outcome = dispatch("action", {}, serve(lambda connection: None).url, timeout_ms=100)
    assert outcome == Failed("The connector action did not answer within 100 ms.")


def test_a_huge_answer_is_cut_off(serve: Run, answer: Run) -> None:
    bomb = gzip.compress(b'{"a": "' + b"x" * 5_000_000)
    server = serve(answer(200, bomb, Content_Encoding="gzip"))
    outcome = dispatch("action", {}, server.url, http_max_bytes=100_000)
    assert isinstance(outcome, Failed)
    assert "bigger than 100,000 bytes" in outcome.error
    assert not outcome.retryable


def test_the_stop_signal_cuts_a_request_at_once(serve: Run) -> None:
    stop = StopSignal()
    server = serve(lambda connection: stop.set("cancelled"))
    outcome = dispatch("action", {}, server.url, stop=stop)
    assert outcome == Interrupted(
        "The request to the connector action was cut off while it was under way."
    )
    assert header(server.requests[0], "webhook-id") == ["step-1"]


def test_202_parks_the_node_until_its_deadline(receiver: Receiver) -> None:
    receiver.answer = lambda event: (202, b'{"job": 7}')
    before = datetime.now(UTC)
    outcome = dispatch("action", {}, receiver.url, callback_timeout_ms=90_000)
    assert isinstance(outcome, AwaitCallback)
    assert outcome.output["accepted"] == {"job": 7}
    assert outcome.output["callback"]["timeoutMs"] == 90_000
    assert outcome.until is not None
    assert timedelta(0) <= outcome.until - before - timedelta(seconds=90) < timedelta(seconds=10)


def test_202_with_a_heartbeat_parks_it_until_the_first_silence(receiver: Receiver) -> None:
    receiver.answer = lambda event: (202, b"accepted")  # what is no JSON object is not kept
    before = datetime.now(UTC)
    outcome = dispatch("action", {}, receiver.url, heartbeat_ms=5_000)
    assert isinstance(outcome, AwaitCallback)
    assert outcome.output["callback"]["heartbeatMs"] == 5_000
    assert "accepted" not in outcome.output
    assert outcome.until is not None
    assert timedelta(seconds=5) <= outcome.until - before < timedelta(seconds=15)


def test_202_is_no_answer_where_nothing_can_be_called_back(receiver: Receiver) -> None:
    receiver.answer = lambda event: (202, b"{}")
    outcome = dispatch("action", {}, receiver.url, token=None)
    assert isinstance(outcome, Failed)
    assert "callback" not in receiver.events[0]


PARKED = {"callback": {"timeoutMs": 60_000, "heartbeatMs": 1_000}}


@pytest.mark.parametrize(
    ("result", "parked", "waited", "outcome"),
    [
        ({"status": "completed", "output": {"a": 1}}, {}, 5, Done({"a": 1})),
        ({"status": "completed", "output": {}}, {}, 5, Done({})),
        ({"status": "failed", "error": "no", "retryable": False}, {}, 5, Failed("no", False)),
        ({"status": "failed", "error": "no", "retryable": True}, {}, 5, Failed("no", True)),
        (
            None,
            PARKED,
            1_200,
            Failed("The remote side of this action node has been silent for 1000 ms."),
        ),
        (
            None,
            PARKED,
            60_001,
            Failed("The remote side of this action node did not call back within 60000 ms."),
        ),
    ],
)
def test_a_parked_node_ends_as_it_was_called_back(
    resume: Run, result: Any, parked: Any, waited: int, outcome: Outcome
) -> None:
    assert resume("action", {}, result, parked, waited_ms=waited) == outcome
    again = resume("function", {}, result, parked, waited_ms=waited)
    assert type(again) is type(outcome)


@pytest.mark.parametrize("kind", ["action", "imagine", "firecrawl", "database", "ticket"])
def test_a_kind_without_connector_names_the_setting(run: Run, kind: str) -> None:
    outcome = run(kind, {})
    assert isinstance(outcome, Failed)
    assert not outcome.retryable
    assert f"[connectors.{kind}]" in outcome.error
    assert "METRONOME_CONNECTORS" in outcome.error


def test_the_connector_of_a_subtype_goes_before_that_of_the_kind(receiver: Receiver) -> None:
    mine = {
        "action": connector("http://127.0.0.1:1", "action"),
        "action.start_thread": connector(receiver.url, "action.start_thread"),
    }
    action, limits = REGISTRY["action"], NodeLimits(connectors=mine)
    assert action.connector({}, limits, "start_thread") == "action.start_thread"
    assert action.connector({}, limits, "other") == "action"
    assert action.connector({}, limits) == "action.start_thread"  # the only subtype that there is
    assert REGISTRY["imagine"].connector({}, limits) is None
    context = replace(context_of("action", {}, connectors=mine), started_at=datetime.now(UTC))
    assert isinstance(action.run(context), Done)
    assert receiver.events[0]["subtype"] == "start_thread"


def test_a_replay_is_safe_where_all_connectors_that_may_serve_it_say_so() -> None:
    safe = connector("http://x", "action", replay_safe=True)
    unsafe = connector("http://x", "action.start_thread")
    for connectors, expected in (
        ({}, False),
        ({"action": safe}, True),
        ({"action": safe, "action.start_thread": unsafe}, False),
        ({"action": safe, "firecrawl": unsafe}, True),
    ):
        limits = NodeLimits(connectors=connectors)
        assert REGISTRY["action"].replay_safe({}, limits) is expected


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"message": "{{ ( }}"}, "config.message"),
        ({"attachments": [{"id": "{{ ( }}"}]}, "config.attachments.0.id"),
        ({"inputBinding": "trigger.("}, "config.inputBinding"),
        ({"inputBinding": 5}, "config.inputBinding"),
        ({"recordsBinding": "a b"}, "config.recordsBinding"),
        ({"inputBindings": {"a": "(", "b": "trigger"}}, "config.inputBindings.a"),
        ({"inputBindings": ["trigger", ""]}, "config.inputBindings.1"),
        ({"inputBindings": "trigger"}, "config.inputBindings"),
        ({"schemaJson": "{"}, "config.schemaJson"),
        ({"documentTemplate": "{{ ( }}"}, None),
        ({"inputBinding": None, "inputBindings": None, "limit": 5, "anything": [1]}, None),
    ],
)
def test_a_bad_config_is_named(faults: Run, config: dict[str, Any], field: str | None) -> None:
    assert faults("database", config) == ([field] if field else [])


def test_the_example_does_the_work_and_refuses_what_is_forged(example: Example) -> None:
    config = {"message": "hello {{ trigger.input.files }}"}
    assert dispatch("action", config, example.url) == Done({"text": 'hello ["a.csv"]'})
    failed = dispatch("action", {"fail": "out of paper"}, example.url)
    assert isinstance(failed, Failed)
    assert "HTTP 422: out of paper" in failed.error
    forged = dispatch("action", config, example.url, secret=OTHER_SECRET)
    assert isinstance(forged, Failed)
    assert "HTTP 401: the signature is not valid" in forged.error
    working = dispatch("action", {"message": "later", "seconds": 60}, example.url)
    assert isinstance(working, AwaitCallback)
    assert working.output["accepted"] == {"job": "step-1"}


def test_a_function_that_is_not_installed_goes_to_its_connector(receiver: Receiver) -> None:
    config = {"functionName": "resize", "payloadJson": '{"q": "{{ trigger.input.q }}"}'}
    receiver.answer = lambda event: (200, b'{"width": 5}')
    assert dispatch("function", config, receiver.url, subtype="invoke_function") == Done(
        {"width": 5}
    )
    (event,) = receiver.events
    assert event["config"] == {"functionName": "resize", "payload": {"q": 'the "best" one'}}
    assert (event["nodeKind"], event["subtype"]) == ("function", "invoke_function")


def test_a_function_without_connector_names_both_ways(run: Run) -> None:
    outcome = run("function", {"functionName": "resize"})
    assert isinstance(outcome, Failed)
    assert "metronome.functions" in outcome.error
    assert "[connectors.function]" in outcome.error
    limits = NodeLimits(connectors={"function": connector("http://x", "function")})
    function = REGISTRY["function"]
    assert function.connector({"functionName": "resize"}, limits) == "function"
    assert function.replay_safe({"functionName": "resize"}, limits) is False
    assert function.connector({"functionName": "resize"}, NodeLimits()) is None


def test_nothing_shows_a_secret() -> None:
    assert SECRET not in repr(connector("http://x")) + repr(
        NodeLimits(connectors={"action": connector("http://x")})
    )


def test_an_action_of_an_unknown_subtype_is_refused() -> None:
    node = {"id": "a", "kind": "action", "subtype": "start_war"}
    (issue,) = check_shape({"nodes": [node]}, REGISTRY)
    assert (issue.code, issue.field) == ("unknown_subtype", "definition.nodes.0.subtype")
    assert "start_thread" in issue.message
    for subtype in (None, "", "start_thread"):
        assert check_shape({"nodes": [{**node, "subtype": subtype}]}, REGISTRY) == []
    assert check_shape({"nodes": [{**node, "kind": "imagine"}]}, REGISTRY) == []
