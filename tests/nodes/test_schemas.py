"""What the schemas say of a config is what the checks say: neither can drift from the other."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import orjson
import pytest

from app.domain import cron
from app.domain.errors import ExpressionError
from app.domain.expressions import bare, compile_expression, compile_template
from app.domain.localtime import zone_of
from app.domain.matching import FILTERS
from app.domain.outcomes import Done
from app.domain.shape import check_shape
from app.nodes import REGISTRY, condition, loop
from app.nodes.base import News, NodeLimits
from app.nodes.config_schema import output_schema
from app.nodes.message import BadRequest, read_url
from app.nodes.moments import moment_problems
from app.nodes.schemas import node_schemas, trigger_schema
from app.nodes.trigger_types import TRIGGER_TYPES, trigger_problems
from tests.nodes.conftest import context_of
from tests.nodes.near import Maker

EXAMPLES = 10_000  # of each kind
# What JSON Schema has no word for: what is said of it, by kind.
BEYOND = {
    "http": "config.headers.",  # names and values of headers
    "loop": "iterations is more than maxIterations",
    "condition": "is used twice",
}


def _parses(text: str) -> bool:
    try:
        compile_template(text)
    except ExpressionError:
        return False
    return True


def _is_expression(text: str) -> bool:
    try:
        compile_expression(bare(text))
    except ExpressionError:
        return False
    return True


def _is_json(text: str) -> bool:
    if not _parses(text):
        return False
    try:
        orjson.loads(text)
    except ValueError:
        return "{{" in text
    return True


def _is_url(text: str) -> bool:
    if "{{" in text:
        return _parses(text)
    try:
        read_url(text)
    except BadRequest:
        return False
    return True


def _is_cron(text: str) -> bool:
    try:
        cron.check(text.strip())
    except cron.CronFault:
        return not text.strip()
    return True


def _is_zone(text: str) -> bool:
    try:
        zone_of(text.strip())
    except ValueError:
        return not text.strip()
    return True


FORMATS = {
    "bindings": _parses,
    "expression": _is_expression,
    "json": _is_json,
    "seconds": lambda text: not list(moment_problems({"s": text}, "s", "u")),
    "moment": lambda text: not list(moment_problems({"u": text}, "s", "u")),
    "http-url": _is_url,
    "cron": _is_cron,
    "time-zone": _is_zone,
}


def validator(schema: Any) -> Any:
    return jsonschema_rs.validator_for(schema, formats=FORMATS, validate_formats=True)


def faults(kind: str, config: dict[str, Any]) -> list[str]:
    """What the checks say against publishing a config: field and message."""
    node = {"id": "n", "kind": kind, "config": config}
    found = [
        f"{issue.field}: {issue.message}" for issue in check_shape({"nodes": [node]}, REGISTRY)
    ]
    if not found:
        handler = REGISTRY[kind]
        problems = [*handler.missing(config), *handler.publish_problems(config, None)]
        found = [f"{problem.field}: {problem.message}" for problem in problems]
    return found


@pytest.mark.parametrize("kind", REGISTRY)
def test_a_config_is_valid_where_the_checks_say_so(kind: str) -> None:
    schema = REGISTRY[kind].config_schema
    valid = validator(schema)

    make, good = Maker(1), 0
    for _ in range(EXAMPLES):
        config = make.config(schema)
        found = faults(kind, config)
        if valid.is_valid(config):
            good += 1
            assert all(BEYOND.get(kind, "nothing") in one for one in found), (found, config)
        else:
            assert found, (config, [str(error) for error in valid.iter_errors(config)])
    assert 100 < good < EXAMPLES - 100, good  # else too little was tried


GOOD: dict[str, dict[str, Any]] = {
    "condition": {"conditions": [{"id": "a", "expression": "n > 1"}]},
    "loop": {"loopType": "until", "rule": "n > 1", "maxIterations": 3},
    "transform": {"output": None},
    "delay": {"until": "2030-01-01"},
    "metronome": {"workflowName": "other", "input": {"a": "{{ n }}"}},
    "http": {"url": "https://example.org", "method": "post", "headers": {"X-A": "{{ n }}"}},
    "function": {"functionId": "f", "payloadJson": '{"a": {{ n }}}'},
    "action": {"message": "hello", "inputBindings": {"a": "n"}, "retry": {"maxAttempts": 2}},
}


@pytest.mark.parametrize("kind", REGISTRY)
def test_good_configs_are_valid(kind: str) -> None:
    config = GOOD.get(kind, {})
    assert faults(kind, config) == []
    validator(REGISTRY[kind].config_schema).validate(config)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("condition", {"conditions": []}),
        ("condition", {"conditions": [{"id": "a"}]}),
        ("condition", {"conditions": [{"id": "a", "field": "n", "operator": "is"}]}),
        ("loop", {"loopType": "for_each"}),
        ("loop", {}),
        ("transform", {}),
        ("delay", {"seconds": 1, "until": "2030-01-01"}),
        ("http", {"url": "example.org"}),
        ("function", {"functionName": "f", "payload": 1, "payloadJson": "1"}),
        ("metronome", {"workflowId": None}),
        ("table", {"filePath": "a.csv"}),
        ("action", {"inputBindings": {"a": ""}}),
        ("note", {"retry": {"maxAttempts": 0}}),
        ("end", {"outputKey": "steps"}),
    ],
)
def test_bad_configs_are_not_valid(kind: str, config: dict[str, Any]) -> None:
    assert faults(kind, config)
    assert not validator(REGISTRY[kind].config_schema).is_valid(config)


# Which of its fields a schedule looks at depends on the others: that is beyond the schema.
@pytest.mark.parametrize("trigger_type", sorted(TRIGGER_TYPES.keys() - {"periodic"}))
def test_a_triggers_config_is_valid_where_it_can_be_published(trigger_type: str) -> None:
    schema = trigger_schema(trigger_type)
    valid = validator(schema)
    make = Maker(2)
    for _ in range(EXAMPLES):
        config = make.config(schema)
        for name in ("outputKey", "timeoutMs", "retry"):
            config.pop(name, None)
        found = [problem.field for problem in trigger_problems(trigger_type, config)]
        assert valid.is_valid(config) == (not found), (config, found)


@pytest.mark.parametrize(
    ("config", "good"),
    [
        ({"scheduleType": "cron", "cronExpression": "0 9 * * 1-5"}, True),
        ({"scheduleType": "cron", "cronExpression": "0 9 * *"}, False),
        ({"scheduleType": "recurring", "schedulePresetId": "daily"}, True),
        ({"scheduleType": "recurring", "schedulePresetId": 5}, False),
        ({"scheduleType": "one-time", "scheduledTime": "2030-01-31T08:00"}, True),
        ({"scheduleType": "one-time", "scheduledTime": "tomorrow"}, False),
        ({"scheduleType": "interval", "intervalSeconds": 60, "missed": "skip"}, True),
        ({"scheduleType": "interval", "intervalSeconds": 0}, False),
        ({"intervalSeconds": 60, "scheduleTimezone": "Europe/Berlin"}, True),
        ({"intervalSeconds": 60, "scheduleTimezone": "Nowhere/City"}, False),
        ({"intervalSeconds": 60, "missed": "all"}, False),
        ({"intervalSeconds": 60, "catchUpSeconds": -1}, False),
    ],
)
def test_a_schedule_is_valid_where_it_can_be_published(config: dict[str, Any], good: bool) -> None:
    assert (not list(trigger_problems("periodic", config))) == good
    assert validator(trigger_schema("periodic")).is_valid(config) == good


def test_every_filter_of_events_is_in_the_schema_of_its_trigger() -> None:
    for trigger_type, filters in FILTERS.items():
        named = trigger_schema(trigger_type)["properties"]
        assert {one.field for one in filters} <= named.keys()


def test_the_schemas_are_schemas_and_describe_every_field() -> None:
    shown = node_schemas()
    assert [one["kind"] for one in shown["kinds"]] == list(REGISTRY)
    for one in (*shown["kinds"], *shown["triggerTypes"]):
        jsonschema_rs.meta.validate(one["configSchema"])
        assert one["description"]
        for name, field in one["configSchema"]["properties"].items():
            assert field.get("description"), (one, name)
    for one in shown["kinds"]:
        jsonschema_rs.meta.validate(one["outputSchema"])
        assert one["title"]
    assert [one["operator"] for one in shown["conditionOperators"]] == list(condition.OPERATORS)
    assert shown["loopTypes"] == list(loop.LOOP_TYPES)


@pytest.mark.parametrize("kind", REGISTRY)
def test_replay_safe_kinds_are_so_whatever_their_config(kind: str) -> None:
    handler = REGISTRY[kind]
    tried: tuple[dict[str, Any], ...] = ({}, {"method": "POST"}, {"functionName": "none"})
    safe = all(handler.replay_safe(config, NodeLimits()) for config in tried)
    assert safe == (handler.replay_safe_where is None)


@pytest.mark.parametrize("kind", REGISTRY)
def test_handles_that_are_shown_are_accepted(kind: str) -> None:
    handler = REGISTRY[kind]
    config = GOOD.get(kind, {})
    ids = {entry["id"] for entry in config.get("conditions", ())}
    handles = {handle for handle in handler.handles if not handle.startswith("{")} | ids
    assert list(handler.check(config, frozenset(handles))) == []


def test_every_operator_that_is_shown_can_be_used() -> None:
    assert condition.OPERATORS.keys() == condition._HOLDS.keys()


@pytest.mark.parametrize(
    ("kind", "config", "news"),
    [
        ("condition", {"conditions": [{"id": "a", "expression": "true"}]}, None),
        ("table", {"content": "a,b\n1,2", "batchSize": 1}, None),
        ("delay", {"seconds": 1}, News(None, {}, 5)),
        (
            "approval",
            {"title": "Go?", "deadlineSeconds": 1, "onDeadline": "approve"},
            News(None, {"title": "Go?", "message": None, "deadline": "2026-01-01T00:00:01Z"}, 5),
        ),
        ("metronome", {"workflowName": "w"}, News({"status": "completed", "runId": "r"}, {}, 5)),
    ],
)
def test_outputs_are_what_their_schema_says(
    kind: str, config: dict[str, Any], news: News | None
) -> None:
    handler, context = REGISTRY[kind], context_of(kind, config)
    outcome = handler.run(context) if news is None else handler.resume(context, news)
    assert isinstance(outcome, Done)
    schema = output_schema(handler.outputs)
    jsonschema_rs.validate(schema, outcome.output)
    assert not jsonschema_rs.is_valid(schema, {**outcome.output, "more": 1})
