"""Places are given on in the background, by whatever process has freed them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from app.db import Database
from app.domain.models import Actor, Run
from app.services import concurrency, metronomes, runs, starts, transitions
from app.services.places import Places
from app.store.concurrency import MAX_EXCESS, Group
from tests.processes import PATIENCE, wait_for

ACTOR = Actor("key_1", "ada", "acme")
DEFINITION = {"nodes": [{"id": "start", "kind": "trigger"}], "edges": []}


@pytest.fixture
def places(db: Database) -> Iterator[Places]:
    one = Places(db)
    yield one
    one.close()


def limited(db: Database, on_limit: str = "queue") -> str:
    """A workflow of which one run may be at work at once."""
    limit = {"max_concurrent_runs": 1, "on_limit": on_limit}
    return metronomes.create(db, ACTOR, name="test", definition=DEFINITION, concurrency=limit).id


def begin(db: Database, workflow: str, free: concurrency.Free = concurrency.leave) -> Run:
    """A new run of it."""
    request = starts.RunRequest()
    return starts.create(db, ACTOR, workflow, request, tell=lambda: None, free=free)[0]


def now(db: Database, run: Run) -> Run:
    """The run as it is now."""
    return runs.get(db, ACTOR, run.metronome_id, run.id)


def cancel(db: Database, run: Run, free: concurrency.Free) -> None:
    """Cancel it."""
    transitions.cancel(db, ACTOR, run.metronome_id, run.id, free=free)


def test_a_place_that_a_cancel_has_freed_is_given_on(db: Database, places: Places) -> None:
    workflow = limited(db)
    first, second, third = (begin(db, workflow) for _ in range(3))
    cancel(db, first, places.free)
    wait_for(lambda: now(db, second).admitted)
    cancel(db, second, places.free)
    wait_for(lambda: now(db, third).admitted)


def test_a_cancel_does_not_wait_for_who_has_locked_the_workflow(
    db: Database, places: Places
) -> None:
    workflow = limited(db)
    first, second = begin(db, workflow), begin(db, workflow)
    holder = db.raw()
    holder.autocommit = False
    with holder.cursor() as cursor:
        cursor.execute("SELECT FROM metronomes FOR UPDATE")
        began = time.monotonic()
        cancel(db, first, places.free)
        assert time.monotonic() - began < 4, "it has waited for the lock"
        assert not now(db, second).admitted
    holder.rollback()
    holder.close()
    wait_for(lambda: now(db, second).admitted)


def test_nothing_starts_before_the_first_group(db: Database) -> None:
    before = threading.active_count()
    one = Places(db)
    one.free([])
    assert threading.active_count() == before
    one.close()


def test_what_was_told_before_the_end_is_done(db: Database) -> None:
    workflow = limited(db)
    first, second = begin(db, workflow), begin(db, workflow)
    one = Places(db)
    cancel(db, first, one.free)
    one.close()
    assert now(db, second).admitted


def test_a_fork_starts_a_thread_of_its_own(database_url: str, db: Database) -> None:
    # The parent's thread has run, and its database has no connection that a fork could share.
    workflow = limited(db)
    first, second = begin(db, workflow), begin(db, workflow)
    cancel(db, first, concurrency.leave)
    apart = Database(database_url)
    parent = Places(apart)
    parent.free([("met_unknown", "")])
    parent.close()
    apart.close()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        parent.free([(workflow, "")])
        time.sleep(PATIENCE)
        os._exit(0)
    try:
        wait_for(lambda: now(db, second).admitted)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_database_that_is_away_ends_nothing(
    db: Database, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = limited(db)
    first, second = begin(db, workflow), begin(db, workflow)
    cancel(db, first, concurrency.leave)
    failed = threading.Event()

    def broken(*_: object) -> None:
        failed.set()
        raise RuntimeError("out of the blue")

    with monkeypatch.context() as patched:
        patched.setattr(concurrency, "settle", broken)
        places.free([(workflow, "")])
        assert failed.wait(PATIENCE)
    places.free([(workflow, "")])
    wait_for(lambda: now(db, second).admitted)


def test_a_system_without_a_thread_left_fails_nobody_and_is_asked_again(
    db: Database, places: Places, no_thread: Callable[[], AbstractContextManager[None]]
) -> None:
    workflow = limited(db)
    first, second = begin(db, workflow), begin(db, workflow)
    with no_thread():
        cancel(db, first, places.free)
        places.close()
    assert not now(db, second).admitted
    places.free([("met_unknown", "")])
    wait_for(lambda: now(db, second).admitted)


@pytest.fixture
def crowd(db: Database) -> str:
    """A workflow in which very many runs wait, of which all but the newest are to go."""
    workflow = limited(db)
    begin(db, workflow)
    waiting = begin(db, workflow)
    columns = (
        "organization_id, metronome_id, user_id, version_id, trigger_type, status, input,"
        " concurrency_key, admitted, due_at"
    )
    connection = db.raw()
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO runs (id, {columns}) SELECT 'run_' || lpad(n::text, 32, '0'), {columns}"
            " FROM runs, generate_series(1, %s) n WHERE id = %s",
            (4 * MAX_EXCESS, waiting.id),
        )
        cursor.execute("UPDATE metronomes SET on_limit = 'cancel_oldest'")
    connection.close()
    return workflow


def count(db: Database, status: str) -> int:
    """How many runs have this status."""
    with db.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT count(*) FROM runs WHERE status = %s", (status,)
        ).scalar_one()
    return int(found)


def test_a_new_run_cancels_so_many_that_it_can_wait_for_it_and_the_others_follow(
    db: Database, places: Places, crowd: str
) -> None:
    left: list[Group] = []
    run = begin(db, crowd, lambda groups, actor: left.extend(groups))
    assert left == [(crowd, "")]
    assert count(db, "cancelled") == 3 * MAX_EXCESS
    assert not run.admitted
    places.free(left, ACTOR)
    wait_for(lambda: now(db, run).admitted)
    assert count(db, "queued") == 1
    with db.connect() as connection:
        by = connection.exec_driver_sql(
            "SELECT DISTINCT actor_key_id FROM audit_events WHERE action = 'run.cancelled'"
        ).all()
    assert [tuple(one) for one in by] == [(ACTOR.key_id,)]


def test_a_new_run_with_few_before_it_leaves_nothing_to_do(db: Database) -> None:
    workflow = limited(db, "cancel_oldest")
    first = begin(db, workflow)
    left: list[Group] = []
    assert begin(db, workflow, lambda groups, actor: left.extend(groups)).admitted
    assert left == []
    assert now(db, first).status == "cancelled"
