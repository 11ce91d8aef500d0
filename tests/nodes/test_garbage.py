"""Whatever a config holds: what can be saved can be run, and a node fails rather than raises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import ExpressionError
from app.domain.outcomes import AwaitApproval, Done, Failed, Repeat, SleepUntil, Spawn
from app.nodes import REGISTRY
from app.nodes.base import News
from tests.nodes.conftest import context_of

FIELDS = {
    "loop": ("loopType", "iterations", "maxIterations", "inputBinding", "batchSize", "rule"),
    "approval": ("title", "message", "deadline", "deadlineSeconds", "onDeadline"),
    "metronome": ("workflowId", "workflowName", "input", "inputJson", "operation"),
    "table": ("content", "inputBinding", "delimiter", "hasHeader", "batchSize", "operation"),
    "delay": ("seconds", "until"),
}
SCOPE = {
    "n": 3,
    "text": 'a,b\n1,"2"',
    "list": [1, None, {"content": "a;b"}],
    "object": {"a": [True, 1.5]},
    "trigger": {"input": {"files": []}},
}
_VALUES = (
    st.sampled_from(
        [
            *("for_each", "until", "fixed_count", "fail", "reject", "run_workflow", "parse_csv"),
            *("n", "text", "list", "object", "gone", "n > 1", "2030-01-01", ";", "tab", '{"a": 1}'),
            *(f"{{{{ {name} }}}}" for name in ("n", "text", "list", "object", "gone", "n / 2")),
            *("{{ n }} x", '{"a": {{ n }}}', "[{{ n }}]", "{{ 0 - n }}", "{{ true }}", "{{"),
        ]
    )
    | st.none()
    | st.booleans()
    | st.integers(-5, 200_000)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([[], {}, ["{{ n }}"], {"a": "{{ text }}"}, 10**400, "9" * 400, "\x00"])
)


@pytest.mark.parametrize("kind", FIELDS)
def test_what_can_be_saved_can_be_run(kind: str) -> None:
    handler = REGISTRY[kind]

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(st.dictionaries(st.sampled_from(FIELDS[kind]), _VALUES))
    def play(config: dict[str, Any]) -> None:
        problems = [*handler.check(config, frozenset({"", "x"})), *handler.missing({})]
        assert all(problem.message for problem in problems)
        if list(handler.check(config, frozenset())) or list(handler.missing(config)):
            return
        try:
            context = context_of(kind, config, SCOPE)
        except ExpressionError:
            return
        outcome = handler.run(context)
        assert isinstance(outcome, (AwaitApproval, Done, Failed, Repeat, SleepUntil, Spawn))
        if isinstance(outcome, (AwaitApproval, SleepUntil)):
            handler.resume(context, News(None, outcome.output, 5))

    play()
