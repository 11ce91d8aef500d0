from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.domain.outcomes import Done, Failed

Run = Callable[..., Any]
SCOPE = {
    "trigger": {
        "input": {"n": 10, "t": "10", "s": "hello", "l": [1, "a"], "d": {"k": 0}, "yes": True}
        | {"nothing": None, "blank": "", "none": []}
    }
}


def test_the_first_condition_that_holds_is_taken(run: Run) -> None:
    conditions = [
        {"id": "a", "expression": "trigger.input.n > 99"},
        {"id": "b", "label": "B", "expression": "{{ trigger.input.n > 9 }}"},
        {"id": "c", "expression": "true"},
    ]
    config = {"conditions": conditions}
    assert run("condition", config, SCOPE, handles=("a", "b")) == Done({"matched": "b"}, "b")
    config = {"conditions": conditions[:1] * 2}
    assert run("condition", config, SCOPE, handles=("a", "false")) == Done(
        {"matched": "else"}, "else"
    )


@pytest.mark.parametrize(
    ("holds", "handles", "branch"),
    [
        ("true", (), "only"),
        ("true", ("true", "false"), "true"),
        ("true", ("true", "only"), "only"),
        ("false", (), "else"),
        ("false", ("true", "false"), "false"),
        ("false", ("false", "else"), "else"),
    ],
)
def test_a_single_condition_knows_true_and_false(
    run: Run, holds: str, handles: tuple[str, ...], branch: str
) -> None:
    config = {"conditions": [{"id": "only", "expression": holds}]}
    outcome = run("condition", config, SCOPE, handles=handles)
    assert outcome.branch == branch
    assert outcome.output == {"matched": "only" if holds == "true" else "else"}


def test_a_missing_name_in_an_expression_fails_the_node(run: Run) -> None:
    config = {"conditions": [{"id": "a", "expression": "trigger.input.gone > 1"}]}
    outcome = run("condition", config, SCOPE)
    assert isinstance(outcome, Failed)
    assert not outcome.retryable
    assert "'trigger.input.gone' is missing" in outcome.error


@pytest.mark.parametrize(
    ("field", "operator", "value", "holds"),
    [
        ("n", "equals", 10, True),
        ("n", "equals", "10", True),
        ("n", "equals", True, False),
        ("yes", "equals", "true", True),
        ("yes", "equals", 1, False),
        ("t", "equals", 10, False),
        ("s", "equals", "{{ trigger.input.s }}", True),
        ("gone", "equals", None, True),
        ("gone", "equals", "", False),
        ("n", "not_equals", 11, True),
        ("gone", "not_equals", 1, True),
        ("s", "contains", "ell", True),
        ("l", "contains", "1", True),
        ("l", "contains", "b", False),
        ("d", "contains", "k", True),
        ("n", "contains", "1", False),
        ("gone", "contains", "x", False),
        ("s", "not_contains", "x", True),
        ("gone", "not_contains", "x", True),
        ("l", "not_contains", "a", False),
        ("s", "starts_with", "he", True),
        ("n", "starts_with", "1", True),
        ("gone", "starts_with", "", False),
        ("s", "ends_with", "lo", True),
        ("s", "ends_with", None, False),
        ("n", "gt", 9, True),
        ("n", "gt", "9", True),
        ("t", "gt", "9", True),
        ("s", "gt", "abc", True),
        ("s", "gt", 1, False),
        ("gone", "gt", 0, False),
        ("n", "gte", 10, True),
        ("n", "lt", 10, False),
        ("gone", "lt", 10, False),
        ("n", "lte", 10, True),
        ("n", "exists", None, True),
        ("blank", "exists", None, True),
        ("nothing", "exists", None, False),
        ("gone.deeper", "exists", None, False),
        ("gone", "is_empty", None, True),
        ("nothing", "is_empty", None, True),
        ("blank", "is_empty", None, True),
        ("none", "is_empty", None, True),
        ("s", "is_empty", None, False),
        ("n", "is_empty", None, False),
    ],
)
def test_an_operator_holds_as_it_says(
    run: Run, field: str, operator: str, value: object, holds: bool
) -> None:
    entry = {"id": "a", "field": f"trigger.input.{field}", "operator": operator, "value": value}
    outcome = run("condition", {"conditions": [entry]}, SCOPE)
    assert outcome.output["matched"] == ("a" if holds else "else")
    entry["field"] = f"{{{{ {entry['field']} }}}}"
    assert run("condition", {"conditions": [entry]}, SCOPE) == outcome


@pytest.mark.parametrize(
    ("conditions", "field"),
    [
        (5, "config.conditions"),
        ([1], "config.conditions.0"),
        ([{"expression": "1"}], "config.conditions.0.id"),
        ([{"id": "else", "expression": "1"}], "config.conditions.0.id"),
        ([{"id": "a", "expression": "1"}] * 2, "config.conditions.1.id"),
        (
            [{"id": "a", "expression": "1", "field": "b", "operator": "exists"}],
            "config.conditions.0",
        ),
        ([{"id": "a", "expression": "("}], "config.conditions.0.expression"),
        ([{"id": "a", "expression": 5}], "config.conditions.0.expression"),
        ([{"id": "a", "field": ")", "operator": "exists"}], "config.conditions.0.field"),
        ([{"id": "a", "field": "b", "operator": "like"}], "config.conditions.0.operator"),
        ([{"id": "a", "field": "b", "operator": []}], "config.conditions.0.operator"),
        (
            [{"id": "a", "field": "b", "operator": "equals", "value": "{{"}],
            "config.conditions.0.value",
        ),
    ],
)
def test_a_bad_condition_is_named(faults: Run, conditions: Any, field: str) -> None:
    assert faults("condition", {"conditions": conditions}) == [field]


@pytest.mark.parametrize(
    ("conditions", "fields"),
    [
        (None, ["config.conditions"]),
        ([], ["config.conditions"]),
        ([{"id": "a"}], ["config.conditions.0"]),
        ([{"id": "a", "expression": ""}], ["config.conditions.0"]),
        ([{"id": "a", "expression": "1"}, {"id": "b"}], ["config.conditions.1"]),
        ([{"id": "a", "expression": "1"}], []),
        ([{"id": "a", "field": "b", "operator": "exists"}], []),
    ],
)
def test_a_draft_may_lack_conditions(lacks: Run, conditions: Any, fields: list[str]) -> None:
    assert lacks("condition", {"conditions": conditions}) == fields
