from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.domain.errors import ExpressionError
from app.domain.outcomes import Done, Failed, Spawn
from app.nodes import REGISTRY

Run = Callable[..., Any]
SCOPE = {"trigger": {"input": {"n": 5, "id": "m-1", "o": {"a": 'b"c'}, "blank": ""}}}


@pytest.mark.parametrize(
    ("config", "spawn"),
    [
        ({"workflowId": "m-1"}, Spawn("m-1", None, {})),
        ({"workflowName": "Other", "workflowId": ""}, Spawn(None, "Other", {})),
        ({"workflowName": "Other", "workflowId": "m-1"}, Spawn("m-1", None, {})),
        ({"workflowId": "{{ trigger.input.id }}", "input": None}, Spawn("m-1", None, {})),
        (
            {"workflowId": "m", "input": {"x": "{{ trigger.input.n }}"}},
            Spawn("m", None, {"x": 5}),
        ),
        (
            {"workflowId": "m", "input": "{{ trigger.input.o }}"},
            Spawn("m", None, {"a": 'b"c'}),
        ),
        (
            {"workflowId": "m", "inputJson": '{"x": "{{ trigger.input.o.a }}"}'},
            Spawn("m", None, {"x": 'b"c'}),
        ),
        (
            {"workflowId": "m", "inputJson": '{"x": {{ trigger.input.n }}}'},
            Spawn("m", None, {"x": 5}),
        ),
        (
            {"workflowId": "m", "inputJson": "{{ trigger.input.o }}"},
            Spawn("m", None, {"a": 'b"c'}),
        ),
    ],
)
def test_a_workflow_is_started_with_an_input(
    run: Run, lacks: Run, config: dict[str, Any], spawn: Spawn
) -> None:
    assert lacks("metronome", {"operation": "run_workflow", **config}) == []
    assert run("metronome", config, SCOPE) == spawn


def test_the_step_records_the_whole_input() -> None:
    config = {"workflowName": "Other", "inputJson": '{"x": {{ trigger.input.n }}}'}
    kind = REGISTRY["metronome"]
    assert kind.record(kind.bind(config, SCOPE)) == {"workflowName": "Other", "input": {"x": 5}}


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"workflowId": "{{ trigger.input.n }}"}, "must give a text"),
        ({"workflowId": "{{ trigger.input.blank }}"}, "must give a text"),
        ({"workflowId": "m", "input": "{{ trigger.input.n }}"}, "must be an object, and is a num"),
        ({"workflowId": "m", "inputJson": "[{{ trigger.input.n }}]"}, "and is a list"),
    ],
)
def test_a_binding_of_the_wrong_kind_fails_the_node(
    run: Run, config: dict[str, Any], error: str
) -> None:
    outcome = run("metronome", config, SCOPE)
    assert error in outcome.error
    assert not outcome.retryable


def test_an_input_that_bindings_spoil_is_no_input() -> None:
    for text in ("{{ trigger.gone }}", '{"x": {{ trigger.input.id }}}'):
        with pytest.raises(ExpressionError):
            REGISTRY["metronome"].bind({"workflowId": "m", "inputJson": text}, SCOPE)


@pytest.mark.parametrize(("answered", "output"), [({"a": 1}, {"a": 1}), (None, {})])
def test_a_nested_run_that_completes_gives_its_output(
    resume: Run, answered: Any, output: dict[str, Any]
) -> None:
    result = {"runId": "r-2", "status": "completed", "output": answered, "error": None}
    assert resume("metronome", {}, result) == Done(
        {"runId": "r-2", "status": "completed", "output": output}
    )


def test_a_nested_run_that_fails_fails_the_node_which_may_try_again(resume: Run) -> None:
    result = {"runId": "r-2", "status": "failed", "output": None, "error": "node a failed: no"}
    assert resume("metronome", {}, result) == Failed(
        "The nested run r-2 failed: node a failed: no",
        retryable=True,
        output={"runId": "r-2", "status": "failed", "output": None},
    )


@pytest.mark.parametrize("status", ["cancelled", "deleted"])
def test_a_nested_run_that_somebody_ended_fails_the_node_for_good(resume: Run, status: str) -> None:
    outcome = resume("metronome", {}, {"runId": "r-2", "status": status})
    assert outcome.error == f"The nested run r-2 was {status}."
    assert not outcome.retryable


def test_a_nested_run_that_is_gone_was_deleted(resume: Run) -> None:
    outcome = resume("metronome", {}, None, {"runId": "r-2"})
    assert outcome.error == "The nested run r-2 was deleted."


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"workflowId": 5}, "config.workflowId"),
        ({"workflowName": ["a"]}, "config.workflowName"),
        ({"workflowName": "{{ ( }}"}, "config.workflowName"),
        ({"input": [1]}, "config.input"),
        ({"input": {"a": "{{ ( }}"}}, "config.input.a"),
        ({"inputJson": {"a": 1}}, "config.inputJson"),
        ({"inputJson": "{broken"}, "config.inputJson"),
        ({"inputJson": "{}", "input": {}}, "config"),
        ({"operation": "stop_workflow"}, "config.operation"),
    ],
)
def test_a_bad_config_is_named(faults: Run, config: dict[str, Any], field: str) -> None:
    assert faults("metronome", config) == [field]


@pytest.mark.parametrize("config", [{}, {"workflowId": "", "workflowName": None}])
def test_a_draft_may_lack_the_workflow(lacks: Run, config: dict[str, Any]) -> None:
    assert lacks("metronome", config) == ["config.workflowId"]
