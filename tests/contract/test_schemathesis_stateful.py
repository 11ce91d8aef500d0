"""Chains of requests, each made from the answers to those before: along the document's links."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings

from tests.api.conftest import Caller
from tests.contract.test_schemathesis import NOT_ASKED, caller, schema

__all__ = ["caller"]

CHAINS, STEPS = 100, 10


def test_no_chain_of_requests_is_answered_otherwise_than_documented(caller: Caller) -> None:
    chain: Any = schema.as_state_machine()
    asked = []

    class Chain(chain):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": caller.headers}

        def validate_response(self, response: Any, case: Any, **options: Any) -> None:
            asked.append(response.status_code)
            case.validate_response(response, excluded_checks=NOT_ASKED)

    Chain.run(
        settings=settings(
            max_examples=CHAINS,
            stateful_step_count=STEPS,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
    )
    assert len(asked) >= CHAINS
    found = [status for status in asked if status < 300]
    assert len(found) > len(asked) / 4  # they go somewhere
