from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.outcomes import Done, Failed, Interrupted
from app.domain.stop import StopSignal
from app.nodes import REGISTRY
from app.nodes import function as module
from app.nodes.base import NodeLimits
from tests.connectors import connector

Run = Callable[..., Any]

CODE = """
import sys
def echo(payload):
    return payload
def about(payload, context):
    return {name: getattr(context, name)
            for name in ("run_id", "step_id", "node_id", "attempt", "idempotency_key")}
def change(payload):
    payload["list"].append("changed")
    return payload
def value(payload):
    return (1, "x")
def bad(payload):
    return {"a": [1, "\\x00"]}
def unserialisable(payload):
    return {"a": {1, 2}}
def big(payload):
    return "x" * 2000
def boom(payload):
    raise ValueError("no\\x00pe")
class Final(Exception):
    retryable = False
def final(payload):
    raise Final("for good")
def leave(payload):
    sys.exit(3)
def wait(payload, context):
    stopped = context.wait(60)
    context.raise_if_stopped()
    return {"stopped": stopped}
def finish(payload, context):
    return {"stopped": context.wait(60), "is": context.stopped()}
def safe(payload):
    return {}
safe.metronome_replay_safe = True
def pure(payload):
    return {}
pure.metronome_pure = True
def nearly(payload):
    return {}
nearly.metronome_pure = "yes"
many = lambda *everything: len(everything)
number = 5
"""
NAMES = """
echo about change value bad unserialisable big boom final leave wait finish safe pure nearly many
number
"""


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A distribution on the path, as pip would have installed it."""
    site = tmp_path_factory.mktemp("site")
    (site / "probe_functions.py").write_text(CODE)
    info = site / "probe_functions-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: probe-functions\nVersion: 1.0\n")
    lines = [f"{name} = probe_functions:{name}" for name in NAMES.split()]
    lines += ["absent = probe_functions:absent", "broken = probe_gone:x"]
    (info / "entry_points.txt").write_text("\n".join(["[metronome.functions]", *lines, ""]))
    before = module.FUNCTIONS
    sys.path.insert(0, str(site))
    module.FUNCTIONS = module.Functions()
    yield
    module.FUNCTIONS = before
    sys.path.remove(str(site))
    sys.modules.pop("probe_functions", None)


def test_the_function_gets_the_payload_and_its_result_is_the_output(run: Run) -> None:
    config = {"functionName": "echo", "payload": {"n": "{{ trigger.n }}"}}
    assert run("function", config, {"trigger": {"n": 5}}) == Done({"n": 5})
    assert run("function", {"functionId": "echo"}) == Done({})
    assert run("function", {"functionName": "value"}) == Done({"value": [1, "x"]})
    assert run("function", {"functionName": "many"}) == Done({"value": 2})


def test_the_function_is_told_about_its_step(run: Run) -> None:
    assert run("function", {"functionName": "about"}).output == {
        "run_id": "run-1",
        "step_id": "step-1",
        "node_id": "node-1",
        "attempt": 1,
        "idempotency_key": "key-1",
    }


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ('{"a": "{{ trigger.quoted }}", "n": "{{ trigger.n }}"}', {"a": '"}', "n": 5}),
        ('{"n": {{ trigger.n }}, "o": {{ trigger.o }} }', {"n": 5, "o": {"k": [1]}}),
        ("{{ trigger.o }}", {"k": [1]}),
    ],
)
def test_a_payload_as_text_holds_json_with_bindings(run: Run, text: str, payload: Any) -> None:
    scope = {"trigger": {"quoted": '"}', "n": 5, "o": {"k": [1]}}}
    assert run("function", {"functionName": "echo", "payloadJson": text}, scope) == Done(payload)


def test_a_payload_that_is_no_json_once_filled_in_fails(run: Run) -> None:
    config = {"functionName": "echo", "payloadJson": '{"n": {{ trigger.n }} }'}
    outcome = run("function", config, {"trigger": {"n": "}"}})
    assert isinstance(outcome, Failed)
    assert "payloadJson" in outcome.error


def test_the_function_can_not_change_what_others_read(run: Run) -> None:
    scope: dict[str, Any] = {"steps": {"a": {"output": {"list": []}}}}
    config = {"functionName": "change", "payload": "{{ steps.a.output }}"}
    assert run("function", config, scope) == Done({"list": ["changed"]})
    assert scope["steps"]["a"]["output"] == {"list": []}


@pytest.mark.parametrize(
    ("name", "error", "retryable"),
    [
        ("boom", "ValueError: no�pe", True),
        ("final", "Final: for good", False),
        ("leave", "SystemExit: 3", True),
        ("bad", "result.a.1 holds a NUL", False),
        ("unserialisable", "result.a is of the type set", False),
        ("big", "result is bigger than 1,000 bytes", False),
        ("absent", "can't be imported: AttributeError", False),
        ("broken", "can't be imported: ModuleNotFoundError", False),
        ("number", "can't be imported: TypeError: .* can't be called", False),
        ("gone", "no function 'gone'.*metronome.functions.*echo", False),
    ],
)
def test_what_goes_wrong_is_said(run: Run, name: str, error: str, retryable: bool) -> None:
    outcome = run("function", {"functionName": name}, output_max_bytes=1000)
    assert isinstance(outcome, Failed)
    assert outcome.retryable is retryable
    assert re.search(error, outcome.error)


def test_a_function_can_see_the_stop_signal(run: Run) -> None:
    for name, outcome in (
        ("wait", Interrupted("The function gave up: cancelled.")),
        ("finish", Done({"stopped": True, "is": True})),
    ):
        stop = StopSignal()
        threading.Timer(0.05, stop.set, ("cancelled",)).start()
        assert run("function", {"functionName": name}, stop=stop) == outcome


def test_only_a_function_that_says_so_is_replay_safe() -> None:
    for name, safe in (("safe", True), ("echo", False), ("gone", False), ("broken", False)):
        assert REGISTRY["function"].replay_safe({"functionName": name}, NodeLimits()) is safe


@pytest.mark.parametrize(
    ("config", "pure"),
    [
        ({"functionName": "pure"}, True),
        ({"functionName": "pure", "timeoutMs": 100}, False),  # it is expected to wait
        ({"functionName": "nearly"}, False),
        ({"functionName": "safe"}, False),
        ({"functionName": "broken"}, False),
        ({"functionName": "gone"}, False),
        ({}, False),
    ],
)
def test_only_a_function_that_says_so_only_computes(config: dict[str, Any], pure: bool) -> None:
    function = REGISTRY["function"]
    assert function.is_pure(config) is pure
    if pure:
        assert function.replay_safe(config, NodeLimits())


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"functionName": 5}, "config.functionName"),
        ({"functionName": "f", "payload": {"a": "{{"}}, "config.payload.a"),
        ({"functionName": "f", "payloadJson": {}}, "config.payloadJson"),
        ({"functionName": "f", "payloadJson": "{"}, "config.payloadJson"),
        ({"functionName": "f", "payloadJson": "{{"}, "config.payloadJson"),
        ({"functionName": "f", "payloadJson": "{}", "payload": {}}, "config"),
        ({"functionName": "not installed here"}, None),
    ],
)
def test_a_bad_config_is_named(faults: Run, config: dict[str, Any], field: str | None) -> None:
    assert faults("function", config) == ([field] if field else [])


def test_an_installed_function_goes_before_a_connector(run: Run) -> None:
    connectors = {"function": connector("http://127.0.0.1:1", "function", replay_safe=True)}
    config = {"functionName": "echo", "payload": {"n": 1}}
    assert run("function", config, connectors=connectors) == Done({"n": 1})
    function, limits = REGISTRY["function"], NodeLimits(connectors=connectors)
    assert function.connector(config, limits) is None
    assert function.replay_safe(config, limits) is False
    assert function.connector({"functionName": "broken"}, limits) is None  # to be repaired


@pytest.mark.parametrize("config", [{}, {"functionName": None}, {"functionName": ""}])
def test_a_draft_may_lack_the_name(lacks: Run, config: dict[str, Any]) -> None:
    assert lacks("function", config) == ["config.functionName"]
    for name in ("functionName", "functionId"):
        assert lacks("function", {**config, name: "f"}) == []
