"""Chains of requests, each made from the answers to those before: along the document's links."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import ignored_auth

from app.db import Database
from app.store.schema import metadata
from tests.api.conftest import Caller, data
from tests.contract.test_schemathesis import EXAMPLES, caller, door, not_asked

__all__ = ["caller"]

CHAINS, STEPS = max(100, EXAMPLES), 10
WITH_OUR_KEY = schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})
schema = schemathesis.openapi.from_wsgi("/openapi.json", door, config=WITH_OUR_KEY)
KEPT = ("api_keys", "executors")  # tables
PREFIXES = {"metronomeId": "met_", "versionId": "ver_", "runId": "run_"}


def test_no_chain_of_requests_is_answered_otherwise_than_documented(
    caller: Caller, db: Database
) -> None:
    # What needs no API key is asked one by one elsewhere.
    chain: Any = schema.exclude(path_regex="stepId|github").as_state_machine()
    asked: list[int] = []

    class Chain(chain):  # type: ignore[misc]
        def setup(self) -> None:
            """What one chain left must not change what another one comes to."""
            with db.connect() as connection:
                for table in metadata.sorted_tables:
                    if table.name not in KEPT:
                        connection.execute(table.delete())
            metronome = caller.new_metronome()
            version = data(caller.post(f"{metronome}/versions"), 201)["id"]
            run = caller.new_run(metronome).rpartition("/")[2]
            ids = (metronome.rpartition("/")[2], version, run)
            self.there = dict(zip(PREFIXES, ids, strict=True))

        def before_call(self, case: Any) -> None:
            """A chain begins at something that is there."""
            for name, prefix in PREFIXES.items():
                given = case.path_parameters.get(name)
                if given is not None and not str(given).startswith(prefix):
                    case.path_parameters[name] = self.there[name]

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": caller.headers}

        def validate_response(self, response: Any, case: Any, **options: Any) -> None:
            asked.append(response.status_code)
            case.validate_response(response, excluded_checks=[*not_asked(case), ignored_auth])

    Chain.run(
        settings=settings(
            max_examples=CHAINS,
            stateful_step_count=STEPS,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
    )
    assert len(asked) >= CHAINS * STEPS / 2
    assert sum(status < 300 for status in asked) > len(asked) / 3  # they lead somewhere
