"""The second wall: what the database itself refuses; and that migrations build the same wall."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import psycopg2
import pytest
from sqlalchemy import create_engine

from app.db import Database, normalized
from app.domain.lifecycle import (
    CANCELLED,
    CLAIMABLE,
    COMPLETED,
    OPEN_STEP,
    PAUSED,
    QUEUED,
    RUN_STATUSES,
    RUNNING,
    SKIPPED,
    STEP_STATUSES,
    TERMINAL,
    WAITING_APPROVAL,
)
from app.store.schema import metadata
from tests.store.world import World

_CONSTRAINTS = """
SELECT conrelid::regclass::text AS t, conname::text, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND conrelid <> 0
    AND conrelid::regclass::text <> 'alembic_version'
ORDER BY 1, 2
"""
_INDEXES = """
SELECT tablename::text, indexname::text, indexdef FROM pg_indexes
WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1, 2
"""
_COLUMNS = """
SELECT table_name::text, column_name::text, data_type::text, is_nullable::text,
    column_default::text
FROM information_schema.columns
WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1, 2
"""


@pytest.mark.parametrize(
    "catalog", [_CONSTRAINTS, _INDEXES, _COLUMNS], ids=["constraints", "indexes", "columns"]
)
def test_the_migrations_build_exactly_what_the_schema_says(
    db: Database, fresh_database_url: str, catalog: str
) -> None:
    """To the letter: Alembic's own check passes over CHECKs and the predicates of indexes."""
    engine = create_engine(normalized(fresh_database_url))
    metadata.create_all(engine)
    engine.dispose()
    wanted = _read(fresh_database_url, catalog)
    assert len(wanted) > 10
    assert _read(db.url.render_as_string(hide_password=False), catalog) == wanted


def _read(url: str, query: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url.replace("postgresql+psycopg2", "postgresql"))
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())
    finally:
        connection.close()


@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
@pytest.mark.parametrize("status", RUN_STATUSES)
def test_a_sound_run_of_each_status_is_kept(world: World, status: str, held: bool) -> None:
    assert world.run(world.put(status, held=held))["status"] == status


_FREE = "lease_token = NULL, locked_by = NULL, locked_at = NULL"
_BROKEN_RUNS = [
    (QUEUED, "status = 'gone', due_at = NULL", "runs_status"),
    *((status, "completed_at = NULL", "runs_terminal_has_end") for status in TERMINAL),
    *(
        (status, "completed_at = now()", "runs_terminal_has_end")
        for status in RUN_STATUSES
        if status not in TERMINAL
    ),
    *((status, f"due_at = NULL, {_FREE}", "runs_claimable_is_due") for status in CLAIMABLE),
    *(
        (status, "due_at = now()", "runs_claimable_is_due")
        for status in RUN_STATUSES
        if status not in CLAIMABLE
    ),
    (RUNNING, "lease_token = 't'", "runs_lease_is_whole"),
    (RUNNING, "locked_by = 'e'", "runs_lease_is_whole"),
    (RUNNING, "locked_at = now()", "runs_lease_is_whole"),
    (
        CANCELLED,
        "lease_token = 't', locked_by = 'e', locked_at = now(), due_at = NULL",
        "runs_lease_is_whole",
    ),
    (RUNNING, "started_at = NULL", "runs_running_has_start"),
    (QUEUED, "attempt_count = -1", "runs_counts"),
    (QUEUED, "max_attempts = 0", "runs_counts"),
    (QUEUED, "timeout_ms = 0", "runs_counts"),
    (RUNNING, "parent_run_id = 'run_1'", "runs_nesting_is_whole"),
    (RUNNING, "parent_seq = 1", "runs_nesting_is_whole"),
    (RUNNING, "root_run_id = 'run_1'", "runs_nesting_is_whole"),
    (RUNNING, "depth = 1", "runs_nesting_is_whole"),
    (RUNNING, "depth = -1", "runs_nesting_is_whole"),
    *(
        (status, "in_doubt = true", "runs_in_doubt_is_paused")
        for status in RUN_STATUSES
        if status != PAUSED
    ),
]


@pytest.mark.parametrize(("status", "change", "constraint"), _BROKEN_RUNS)
def test_a_run_that_contradicts_itself_is_refused(
    world: World, status: str, change: str, constraint: str
) -> None:
    run_id = world.put(status)
    _refused(lambda: world.execute(f"UPDATE runs SET {change} WHERE id = %s", run_id), constraint)


@pytest.mark.parametrize(
    ("status", "change", "constraint"),
    [
        (RUNNING, "status = 'gone', completed_at = now()", "steps_status"),
        *((status, "completed_at = now()", "steps_ended_has_end") for status in OPEN_STEP),
        *(
            (status, "completed_at = NULL", "steps_ended_has_end")
            for status in STEP_STATUSES
            if status not in OPEN_STEP
        ),
        *(
            (status, "lease_token = 't'", "steps_lease_is_in_flight")
            for status in (QUEUED, WAITING_APPROVAL, PAUSED, COMPLETED, CANCELLED, SKIPPED)
        ),
    ],
)
def test_a_step_that_contradicts_itself_is_refused(
    world: World, status: str, change: str, constraint: str
) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, status)
    _refused(
        lambda: world.execute(f"UPDATE steps SET {change} WHERE run_id = %s", run_id), constraint
    )


@pytest.mark.parametrize("change", ["parent_seq = 1", "iteration = 0"])
def test_a_step_is_in_an_iteration_of_a_loop_or_in_none(world: World, change: str) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, COMPLETED)
    _refused(lambda: world.execute(f"UPDATE steps SET {change}"), "steps_iteration_is_whole")
    world.put_step(run_id, 2, COMPLETED, parent_seq="1", iteration="0")


def test_a_nested_run_and_a_run_in_doubt_are_kept(world: World) -> None:
    root = world.put(RUNNING)
    nested = world.put(PAUSED, parent=root, in_doubt="true")
    for column in ("parent_run_id", "parent_seq", "root_run_id"):
        change = f"UPDATE runs SET {column} = NULL WHERE id = %s"
        _refused(partial(world.execute, change, nested), "runs_nesting_is_whole")


def test_a_run_has_one_step_of_a_number_and_a_workflow_one_run_of_a_key(world: World) -> None:
    run_id = world.put(idempotency_key="'once'")
    world.put_step(run_id, 1, COMPLETED)
    _refused(lambda: world.put_step(run_id, 1, RUNNING), "steps_pkey")
    _refused(lambda: world.put(idempotency_key="'once'"), "runs_idempotency")
    world.put(idempotency_key="'once'", metronome_id="'met_b'")


def _refused(change: Callable[[], object], constraint: str) -> None:
    with pytest.raises(psycopg2.IntegrityError) as caught:
        change()
    assert caught.value.diag.constraint_name == constraint
