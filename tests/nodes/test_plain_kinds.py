"""Trigger, transform, delay, note and end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.outcomes import Done, Failed, SleepUntil
from app.nodes import REGISTRY
from app.nodes.base import NodeKind
from tests.nodes.conftest import STARTED

Run = Callable[..., Any]
SCOPE = {"trigger": {"input": {"n": 5, "when": "2026-01-01T01:00:00+01:00"}}}


def test_every_kind_is_registered_under_its_own_name() -> None:
    for name, handler in REGISTRY.items():
        assert isinstance(handler, NodeKind)
        assert handler.kind == name


def test_a_trigger_hands_the_input_on(run: Run) -> None:
    assert run("trigger", {}, SCOPE) == Done(SCOPE["trigger"]["input"])


def test_a_note_does_nothing(run: Run) -> None:
    assert run("note", {"message": "{{ not a binding"}) == Done({})


@pytest.mark.parametrize("kind", ["transform", "end"])
@pytest.mark.parametrize(
    ("output", "made"),
    [
        ({"a": "{{ trigger.input.n + 1 }}"}, {"a": 6}),
        ("{{ trigger.input.n }}", {"value": 5}),
        (["x"], {"value": ["x"]}),
        ("{{ trigger.input }}", SCOPE["trigger"]["input"]),
    ],
)
def test_an_output_is_built_from_bindings(run: Run, kind: str, output: object, made: Any) -> None:
    assert run(kind, {"output": output}, SCOPE) == Done(made)


@pytest.mark.parametrize("kind", ["transform", "end"])
def test_a_missing_name_fails_for_good(run: Run, faults: Run, kind: str) -> None:
    outcome = run(kind, {"output": "{{ steps.gone }}"}, SCOPE)
    assert isinstance(outcome, Failed)
    assert not outcome.retryable
    assert "'steps' is missing" in outcome.error
    assert faults(kind, {"output": {"a": ["{{ ( }}"]}}) == ["config.output.a.0"]


def test_a_draft_may_lack_the_output_of_a_transform(lacks: Run) -> None:
    assert lacks("transform", {}) == ["config.output"]
    assert lacks("transform", {"output": None}) == []


@pytest.mark.parametrize("kind", ["trigger", "note", "end"])
def test_a_kind_without_required_config_lacks_nothing(lacks: Run, kind: str) -> None:
    assert lacks(kind, {}) == []


@pytest.mark.parametrize(
    ("inbound", "output"),
    [
        ({"a": {"x": 1}}, {"x": 1}),
        ({"a": {"x": 1}, "b": {}}, {"a": {"x": 1}, "b": {}}),
        ({}, {}),
    ],
)
def test_an_end_without_output_takes_what_leads_to_it(
    run: Run, inbound: dict[str, Any], output: dict[str, Any]
) -> None:
    assert run("end", {}, {"inbound": inbound}) == Done(output)


def test_nothing_leaves_an_end(faults: Run) -> None:
    assert faults("end", {}, ("",)) == ["handles."]


@pytest.mark.parametrize(
    ("config", "until"),
    [
        ({"seconds": 1.5}, STARTED + timedelta(seconds=1.5)),
        ({"seconds": 0, "until": None}, STARTED),
        ({"seconds": "{{ trigger.input.n }}"}, STARTED + timedelta(seconds=5)),
        ({"seconds": "{{ trigger.input.n }}0"}, STARTED + timedelta(seconds=50)),
        ({"until": "2030-01-31T08:00:00Z"}, datetime(2030, 1, 31, 8, tzinfo=UTC)),
        ({"until": "2030-01-31T08:00:00"}, datetime(2030, 1, 31, 8, tzinfo=UTC)),
        ({"until": "2020-01-01"}, datetime(2020, 1, 1, tzinfo=UTC)),
        ({"until": "{{ trigger.input.when }}"}, STARTED),
    ],
)
def test_a_delay_sleeps_until_its_time(
    run: Run, lacks: Run, config: dict[str, Any], until: datetime
) -> None:
    assert lacks("delay", config) == []
    assert run("delay", config, SCOPE) == SleepUntil(until)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"seconds": 1, "until": "2030-01-01"}, "config"),
        ({"seconds": -1}, "config.seconds"),
        ({"seconds": True}, "config.seconds"),
        ({"seconds": "soon"}, "config.seconds"),
        ({"seconds": "nan"}, "config.seconds"),
        ({"seconds": 1e300}, "config.seconds"),
        ({"seconds": 10**400}, "config.seconds"),
        ({"seconds": []}, "config.seconds"),
        ({"seconds": "{{ ( }}"}, "config.seconds"),
        ({"until": "tomorrow"}, "config.until"),
        ({"until": 5}, "config.until"),
        ({"until": "0001-01-01T00:00+23:59"}, "config.until"),
    ],
)
def test_a_delay_with_a_bad_time_is_refused(
    run: Run, faults: Run, config: dict[str, Any], field: str
) -> None:
    assert faults("delay", config) == [field]
    if len(config) == 1 and "{{" not in str(config):
        assert isinstance(run("delay", config, SCOPE), Failed)


@pytest.mark.parametrize("config", [{}, {"seconds": None, "until": ""}])
def test_a_draft_may_lack_the_time_of_a_delay(run: Run, lacks: Run, config: dict[str, Any]) -> None:
    assert lacks("delay", config) == ["config.seconds"]
    assert isinstance(run("delay", config, SCOPE), Failed)


def test_a_time_beyond_ten_years_fails(run: Run) -> None:
    assert isinstance(run("delay", {"until": "9999-01-01"}, SCOPE), Failed)


def test_a_delay_that_wakes_says_how_long_it_waited(resume: Run) -> None:
    assert resume("delay", {"seconds": 1}, None, {"a": 1}, waited_ms=1501) == Done(
        {"a": 1, "waitedMs": 1501}
    )
