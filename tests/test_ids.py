from __future__ import annotations

import uuid

from app.ids import new_id, step_id, uuid7_hex


def test_ids_are_version_7() -> None:
    made = uuid.UUID(uuid7_hex())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_ids_of_one_process_sort_by_time() -> None:
    made = []
    for _ in range(1_000):
        made.append(new_id("run"))
        sum(range(200))  # more than the quarter of a microsecond that an id can tell apart
    assert made == sorted(made)
    assert len(set(made)) == 1_000


def test_step_ids_sort_within_their_run() -> None:
    run = new_id("run")
    assert step_id(run, 9) < step_id(run, 10) < step_id(run, 100_000)
    assert step_id(run, 1).startswith(run.replace("run_", "step_"))
