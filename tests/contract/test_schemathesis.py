"""Requests made from the OpenAPI document, good and bad: every answer is one that it describes.

By default each of the more than 50 operations is asked up to 40 times, so all of them more than
1,000 times. METRONOME_TEST_EXAMPLES is that number for each operation, and of the chains in
``test_schemathesis_stateful.py`` where that is more than theirs.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from app import create_app
from app.config import Settings
from app.db import Database
from app.services import keys
from app.store import executors
from tests.api.conftest import Caller
from tests.api.remote import TOKEN, parked


class Door:
    """A WSGI application that is known before the database is: for the document, then for tests."""

    def __init__(self) -> None:
        self.app = create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Pass a request on."""
        return self.app(environ, start_response)


EXAMPLES = int(os.environ.get("METRONOME_TEST_EXAMPLES") or 40)  # of each operation
AT_LEAST = 1_000  # of all of them together

door = Door()
schema = schemathesis.openapi.from_wsgi("/openapi.json", door)
_turns = itertools.count()


def not_asked(case: schemathesis.Case[Any]) -> list[Any]:
    """The checks that make no sense for a request.

    A definition is any object for the document, but not for us. And a parameter that is wrong since
    it is an empty list is not even sent.
    """
    checks = [schemathesis.checks.positive_data_acceptance]
    if any(value == [] for value in case.query.values()):
        checks.append(schemathesis.checks.negative_data_rejection)
    return checks


@pytest.fixture
def caller(database_url: str, db: Database) -> Iterator[Caller]:
    """A caller of an API with an empty database."""
    door.app = create_app(Settings(database_url=database_url, listen=False))
    _, secret = keys.create_key(db, name="k", user_id="ada", organization_id="acme")
    executor = db.raw()
    executors.seen(executor, "executor_1", 1)  # or the process is not ready
    executor.close()
    yield Caller(door.app, secret)
    door.app.extensions["metronome"].db.close()


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_documented(
    case: schemathesis.Case[Any], caller: Caller, db: Database
) -> None:
    headers = caller.headers
    if next(_turns) % 4:  # most requests are about things that exist
        if "stepId" in case.path_parameters:
            path, headers = parked(caller, db), {"Authorization": f"Bearer {TOKEN}"}
        else:
            path = f"{caller.new_run()}/steps/none"
        _, metronome_id, _, run_id, _, step_id = path.split("/")
        for name, value in (("metronomeId", metronome_id), ("runId", run_id), ("stepId", step_id)):
            if name in case.path_parameters:
                case.path_parameters[name] = value
    case.call_and_validate(headers=headers, excluded_checks=not_asked(case))


def test_a_run_has_enough_examples() -> None:
    assert len(list(schema.get_all_operations())) * EXAMPLES >= AT_LEAST
