"""Random deeds of people, executors and remote sides, against the model of the lifecycle.

After each of them every row is compared with the model (status, lease, times as relations to now,
doubts, signals, steps, audit events, outbox), and with what is always true.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from app.db import Database
from tests.lifecycle.rules import Lifecycle, Trees


# A failure takes its time: it is made as short as it can be.
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "examples"), [(Lifecycle, 40), (Trees, 32)])
def test_people_and_executors_keep_to_the_table(
    db: Database, kind: type[Lifecycle], examples: int
) -> None:
    machine = type(kind.__name__, (kind,), {"database": db})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=80,
            derandomize=True,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
