from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import ExpressionError
from app.domain.expressions import check_template, compile_expression, render
from app.domain.jsonvalue import check_json

BIG = "x" * 900_000
SCOPE: dict[str, Any] = {
    "trigger": {
        "input": {
            "n": 5,
            "f": 2.5,
            "s": "Abc",
            "nothing": None,
            "yes": True,
            "items": [3, 1, 2],
            "big": BIG,
            "list": [BIG],
            "other": [BIG + "y"],
        }
    },
    "steps": {
        "my-node": {"output": {"items": {"keys": 1}}},
        "1": {"output": {"y": "one"}},
    },
    "run": {"id": "r1"},
}


def value_of(source: str) -> Any:
    return compile_expression(source).evaluate(SCOPE)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("trigger.input.n > 3", True),
        ("1 < trigger.input.n <= 5 and not false", True),
        ("steps['my-node'].output.items", {"keys": 1}),
        ("steps['my-node'].output.items.keys", 1),
        ("steps.1.output.y", "one"),
        ("trigger.input.items[0] + trigger.input.items.1 * 2", 5),
        ("trigger.input.items[-1]", 2),
        ("trigger.input.items[1:]", [1, 2]),
        ("trigger.input.s[:2]", "Ab"),
        ("[1] + [2, null]", [1, 2, None]),
        ("{'a': 1, 'b': [true]}", {"a": 1, "b": [True]}),
        ("trigger.input.s ~ ' ' ~ 2.0 ~ null ~ true ~ [1]", "Abc 2nulltrue[1]"),
        ("7 // 2 + 7 % 4 - 1", 5),
        ("1 / 4", 0.25),
        ("-trigger.input.n", -5),
        ("'b' in 'abc' and 1 in [1] and 'a' in {'a': 0} and 4 not in [1]", True),
        ("1 == true", False),
        ("[1] == [true]", False),
        ("1 == 1.0", True),
        ("{'a': [1]} == {'a': [1.0]}", True),
        ("'yes' if trigger.input.yes else 'no'", "yes"),
        ("'yes' if trigger.input.nothing", None),
        ("a.b.c is defined", False),
        ("trigger.input.nothing is defined", True),
        ("trigger.input.nothing is none", True),
        ("a.b is not defined or a.b > 1", True),
        ("a.b | default(4)", 4),
        ("trigger.input.nothing | default('d')", "d"),
        ("'' | default('d')", ""),
        ("'' | default('d', true)", "d"),
        ("trigger.input.items | sort | join('-')", "1-2-3"),
        ("trigger.input.items | sort(true) | first", 3),
        ("trigger.input.items | sum + (trigger.input.items | max)", 9),
        ("[1, 1.0, '1', 1] | unique | length", 3),
        ("' a ' | trim | upper", "A"),
        ("'a,b' | split(',') | last", "b"),
        ("'a-b' | replace('-', '+')", "a+b"),
        ("3.14159 | round(2)", 3.14),
        ("'12' | int + ('x' | int(3))", 15),
        ("'2.5' | float", 2.5),
        ("{'b': 1} | tojson", '{"b":1}'),
        ("'{\"a\": [1]}' | fromjson", {"a": [1]}),
        ("{'b': 1} | keys + ({'b': 1} | values)", ["b", 1]),
        ("'a b/é' | urlencode", "a%20b%2F%C3%A9"),
        ("-3 | abs", 3),
    ],
)
def test_an_expression_has_the_value_that_it_says(source: str, value: object) -> None:
    found = value_of(source)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x", "'x' is missing .there are: trigger, steps, run"),
        ("steps.my-node.output", "'steps.my' is missing .there are: my-node, 1"),
        ("trigger.input.n.real", "'trigger.input.n.real' is missing"),
        ("trigger.input.items[9]", r"'trigger.input.items\[9\]' is missing .there are 3"),
        ("a.b == 1", "'a' is missing"),
        ("not a", "'a' is missing"),
        ("1/0", "'/' with 0"),
        ("1 + 'a'", r"'\+' can't be used on a number and a text"),
        ("1 + true", r"'\+' can't be used on a number and true"),
        ("null > 1", "'>' can't be used on null and a number"),
        ("1 in 'a'", "'in' can't be used"),
        ("a b", "'b' is not expected"),
        ("(", "unexpected"),
        (" ", "it is empty"),
        ("9223372036854775807 + 1", "too large"),
        ("1e308 * 10", "too large"),
        ("9223372036854775808", "beyond 64 bits"),
        ("1e999", "JSON can't hold"),
        ("'\\x00'", "NUL"),
        ("'\\ud800'", "surrogate"),
        ("'\"\\\\u0000\"' | fromjson", "NUL"),
        ("1 | frob", "no filter 'frob'"),
        ("1 is divisibleby(3)", "no test"),
        ("[1, 'a'] | sort", "numbers only"),
        ("'x' | int", "can't make a number of 'x'"),
        ("'x' | join(1, 2)", "takes 0 to 1 arguments"),
        ("1 | default(value=2)", "no named arguments"),
        ("{1: 2}", "key of an object must be a text"),
    ],
)
def test_a_fault_is_told_with_the_expression(source: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message) as caught:
        value_of(source)
    assert source.strip()[:20].replace("\x00", "") in caught.value.message


@pytest.mark.parametrize(
    "source",
    [
        "''.__class__",
        "trigger.__class__",
        "trigger.input.items.append",
        "trigger.get",
        "trigger['__class__']",
        "trigger.input.s.format",
        "self",
        "range",
        "cycler.__init__.__globals__",
        "lipsum",
        "''.join([1])",
        "'{}'.format(1)",
        "range(10)",
        "trigger.input.items.append(3)",
        "[1] | map(attribute='real')",
        "[1] | selectattr('real')",
        "[1] | list",
        "1 | attr('real')",
        "{'a': 1} | xmlattr",
        "'%s' % 1",
        "'%1000000000d' % 1",
    ],
)
def test_nothing_of_python_can_be_reached(source: str) -> None:
    with pytest.raises(ExpressionError):
        value_of(source)


@pytest.mark.parametrize(
    "source",
    [
        "'a' * 1000000000",
        "[1] * 1000000000",
        "10 ** 100000000",
        "1" * 9000,
        "(" * 5000,
        "-" * 9000 + "1",
        "not " * 2000 + "1",
        "a" + ".a" * 4000,
        "[" * 3000 + "]" * 3000,
        "+".join(["1"] * 2000),
        "'" * 9999,
        "x" * 1_000_000,
        "trigger.input.big + trigger.input.big",
        "trigger.input.big ~ trigger.input.big",
        "[" + ",".join(["trigger.input.big"] * 100) + "]",
        "[" + ",".join(["trigger.input.list"] * 100) + "]",
        "{" + ",".join(f"'{n}': trigger.input.list" for n in range(100)) + "}",
        "trigger.input.big | replace('x', trigger.input.big)",
        "['a', 'b', 'c'] | join(trigger.input.big)",
        "+".join(["(trigger.input.list | tojson | length)"] * 100),
        " or ".join(["(trigger.input.list == trigger.input.other)"] * 60),
        " or ".join(["(1 in trigger.input.list)"] * 60),
    ],
)
def test_no_expression_takes_long_or_much(source: str) -> None:
    start = time.process_time()
    with pytest.raises(ExpressionError):
        value_of(source)
    assert time.process_time() - start < 2.0


def test_the_limits_of_a_source_do_not_depend_on_the_stack() -> None:
    assert value_of("+".join(["1"] * 151)) == 151
    with pytest.raises(ExpressionError, match="it is nested too deeply"):
        value_of("+".join(["1"] * 152))
    assert value_of("1" + " " * 9_999) == 1
    with pytest.raises(ExpressionError, match="longer than 10,000 characters"):
        value_of("1" + " " * 10_000)


def test_a_wide_value_can_not_be_multiplied_by_many_bindings() -> None:
    for value in (["{{ trigger.input.list }}"] * 50, "{{ trigger.input.list }}" * 50):
        with pytest.raises(ExpressionError, match=r"too much data|longer than"):
            render(value, SCOPE)


@given(st.text(max_size=40) | st.text("()[]{}'\"|.,+-*/%~ a1_=<>!\\:", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_value_or_an_expression_error(source: str) -> None:
    try:
        value = compile_expression(source).evaluate({"a": {"a": [1, "a"]}})
    except ExpressionError as error:
        error.message.encode()
        return
    check_json(value, "value", max_bytes=10_000)


def test_the_paths_that_an_expression_reads_are_known() -> None:
    found = compile_expression("steps.a + steps.a.b + x['q'].z[i.j] + 1").names()
    assert found == {("steps", "a"), ("steps", "a", "b"), ("x", "q", "z"), ("i", "j")}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ trigger.input.n }}", 5),
        ("{{trigger.input.items}}", [3, 1, 2]),
        ("{{ trigger.input.nothing }}", None),
        (" {{ trigger.input.n }}", " 5"),
        ("n={{ trigger.input.n }}, f={{ trigger.input.f }}", "n=5, f=2.5"),
        ("{{ trigger.input.yes }}{{ null }}{{ {'a': [1]} }}", 'truenull{"a":[1]}'),
        ("{{ 4 / 2 }} {{ 1 / 4 }}", "2 0.25"),
        ("{{ {'a': {'b': 1}} }}", {"a": {"b": 1}}),
        ("{{ {'a': 1}}}", {"a": 1}),
        ("{{ {'a': {'b': {'c': 1}}}}}", {"a": {"b": {"c": 1}}}),
        ("{{ '}}' }}", "}}"),
        ("{{ '{{' }}x}}", "{{x}}"),
        ("{{-1}}", -1),
        ("{% if x %}{# y #}\r\n{{ 1 }}\r\n", "{% if x %}{# y #}\r\n1\r\n"),
        ("{ {x} }", "{ {x} }"),
        ({"a": ["{{ trigger.input.n }}", 1], "{{ k }}": None}, {"a": [5, 1], "{{ k }}": None}),
    ],
)
def test_bindings_are_filled_in(template: object, value: object) -> None:
    found = render(template, SCOPE)
    assert found == value
    assert type(found) is type(value)


def test_a_missing_name_in_a_binding_is_named() -> None:
    with pytest.raises(ExpressionError, match=r"'steps\.gone' is missing"):
        render({"a": ["x {{ steps.gone.output }}"]}, SCOPE)


def test_bindings_that_do_not_parse_are_found_with_their_paths() -> None:
    value = {"a": ["{{", "{{ 1 }}", {"b": "x {{ ( }}"}], "c": "{{ }}", "d": "{{ missing }}"}
    assert [path for path, _ in check_template(value)] == ["a.0", "a.2.b", "c"]
    assert [path for path, _ in check_template("{{")] == [""]


def test_deep_values_are_an_error_and_no_crash() -> None:
    value: list[Any] = ["{{ 1 }}"]
    for _ in range(50_000):
        value = [value]
    assert list(check_template(value)) == []
    with pytest.raises(ExpressionError, match="too deeply"):
        render(value, SCOPE)
