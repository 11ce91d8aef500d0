"""What the schemas say of a config is what the checks say: neither can drift from the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain import cron
from app.domain.errors import ExpressionError
from app.domain.expressions import bare, compile_expression, compile_template
from app.domain.localtime import zone_of
from app.domain.matching import FILTERS
from app.domain.shape import check_shape
from app.nodes import REGISTRY, condition, loop
from app.nodes.base import NodeLimits
from app.nodes.message import BadRequest, read_url
from app.nodes.moments import moment_problems
from app.nodes.schemas import node_schemas, trigger_schema
from app.nodes.trigger_types import TRIGGER_TYPES, trigger_problems

# What JSON Schema has no word for: (kind, the end of the faulty field).
BEYOND = {
    ("http", "headers."),  # names and values of headers
    ("loop", "config.iterations"),  # is at most maxIterations
    ("condition", ".id"),  # comes once
}
_TEXTS = (
    *("n", "n > 1", "for_each", "until", "fixed_count", "fail", "approve", "run_workflow"),
    *("parse_csv", "tab", ";", '"', "\n", ";;", "5", " 12 ", "-1", "1e3", "100001", "0100000"),
    *("2030-01-01", "2030-01-31T08:00:00Z", "08:00", "get", "POST", "FETCH", "equals", "gt", "is"),
    *("https://example.org/a", "ftp://example.org", "https://u:p@example.org", "example.org", " "),
    *(
        "{{ n }}",
        "{{ n }} x",
        "{{",
        "{{ n",
        '{"a": "{{ n }}"}',
        "[{{ n }}]",
        '{"a": 1}',
        "[",
        "n +",
    ),
    *("else", "error", "large", "outputKey", "loop", "not", "my_key", "my key", "loopx", "\\t"),
    *("5 * * * *", "* * *", "Europe/Berlin", "Nowhere/City", "one-time", "cron", "latest", "daily"),
)
_TEXT: st.SearchStrategy[Any] = st.sampled_from(_TEXTS) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=3
)
_PLAIN: st.SearchStrategy[Any] = (
    _TEXT
    | st.sampled_from((None, ""))
    | st.booleans()
    | st.sampled_from((-1, 0, 1, 2, 5, 99, 100, 200, 599, 600, 10_000, 10_001, 100_000, 100_001))
    # A float that is whole is an integer for JSON Schema, but not for us.
    | st.sampled_from((-0.5, 0.5, 1.5, 1e9 + 0.5))
)
_ANY = _PLAIN | st.lists(_PLAIN, max_size=3) | st.dictionaries(st.just("a"), _PLAIN)
# Texts that are right, and texts that are nearly so.
_OF_FORMAT = {
    "bindings": ("a", "{{ n }}", "{{"),
    "expression": ("n > 1", "{{ n }}", "n +", " "),
    "json": ('{"a": "{{ n }}"}', "[{{ n }}]", "[", "{{"),
    "seconds": ("5", "{{ n }}", "-1", "soon"),
    "moment": ("2030-01-01", "{{ n }}", "soon"),
    "http-url": ("https://example.org/a", "{{ n }}", "example.org"),
}


def near(schema: Any) -> st.SearchStrategy[Any]:
    """Values at both sides of every border that a schema draws."""
    if "anyOf" in schema:
        return st.one_of([near(one) for one in schema["anyOf"]])
    if "$ref" in schema:
        return st.sampled_from(("{{ n }}", {"a": ["{{ n }}"]}, [1, "{{"], 0)) | _PLAIN
    if "enum" in schema:
        return st.sampled_from([*schema["enum"], "other"])
    if "type" not in schema:
        return _ANY
    types = schema["type"]
    kinds = [_near(kind, schema) for kind in ([types] if isinstance(types, str) else types)]
    return st.one_of(kinds)


def _near(kind: str, schema: Any) -> st.SearchStrategy[Any]:
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", 0), schema.get("maximum", 10)
        return st.sampled_from((low - 1, low, low + 1, high - 1, high, high + 1, 0.5))
    if kind == "array":
        items = st.lists(near(schema.get("items", {})), max_size=3)
        return items | items.map(lambda found: (found or [None]) * 101)
    if kind == "object":
        return _near_object(schema)
    if kind == "string":
        return st.sampled_from(_OF_FORMAT.get(schema.get("format", ""), ("a",))) | _TEXT
    return st.sampled_from({"boolean": (True, False), "null": (None,)}[kind])


def _near_object(schema: Any) -> st.SearchStrategy[dict[str, Any]]:
    others = schema.get("additionalProperties", {})
    fields = {name: near(one) | _ANY for name, one in schema.get("properties", {}).items()}
    needed = {name: fields.pop(name) for name in schema.get("required", ())}
    fields |= {"a": near(others), "otherJson": near({"type": "string", "format": "json"})}
    whole = st.fixed_dictionaries(needed, optional=fields)
    few = st.fixed_dictionaries({}, optional=dict(list(fields.items())[:6]))
    return st.one_of([whole, st.tuples(whole, few).map(lambda two: two[0] | two[1]), few])


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
    """The fields for which the checks refuse to publish a config."""
    node = {"id": "n", "kind": kind, "config": config}
    found = [issue.field for issue in check_shape({"nodes": [node]}, REGISTRY)]
    if not found:
        handler = REGISTRY[kind]
        problems = [*handler.missing(config), *handler.publish_problems(config, None)]
        found = [problem.field for problem in problems]
    return found


def _beyond(kind: str, fields: Iterable[str]) -> bool:
    return all(any(kind == one and (part in field) for one, part in BEYOND) for field in fields)


def _configs(schema: Any) -> st.SearchStrategy[dict[str, Any]]:
    """One to three fields beside those that are needed: else one of them is always wrong."""
    needed = schema.get("required", ())
    fields = {name: near(one) | _PLAIN for name, one in schema["properties"].items()}
    fields |= {"other": near({"$ref": ""}), "otherJson": near({"type": "string", "format": "json"})}
    first = {name: fields[name] for name in needed}

    def of(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries({**{name: fields[name] for name in names}, **first})

    return st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True).flatmap(of)


@pytest.mark.parametrize("kind", REGISTRY)
def test_a_config_is_valid_where_the_checks_say_so(kind: str) -> None:
    schema = REGISTRY[kind].config_schema
    valid = validator(schema)

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(_configs(schema))
    def compare(config: dict[str, Any]) -> None:
        found = faults(kind, config)
        if valid.is_valid(config):
            assert _beyond(kind, found), (found, config)
        else:
            assert found, (config, [str(error) for error in valid.iter_errors(config)])

    compare()


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
    names = sorted(schema["properties"].keys() - {"outputKey", "timeoutMs", "retry"})
    fields = {name: near(schema["properties"][name]) | _ANY for name in names}

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(st.fixed_dictionaries({}, optional=fields))
    def compare(config: dict[str, Any]) -> None:
        found = [problem.field for problem in trigger_problems(trigger_type, config)]
        assert valid.is_valid(config) == (not found), (config, found)

    compare()


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
