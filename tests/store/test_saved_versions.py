"""Versions that change while they are used, numbered, changed and published by many at once."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, text

from app.db import Database
from app.domain.models import Page, Version
from app.ids import new_id
from app.services import starts
from app.store import metronomes, publishing, saved_versions, triggers, versions
from app.store.saved_versions import Changed
from tests.processes import PATIENCE
from tests.store.test_versions import ADA, EVE, create, draft
from tests.store.world import World

NO_TRIGGERS = triggers.parameters(None, ())


def save(db: Database, metronome: str, definition: str | None = None, **more: Any) -> Version:
    values = {"version_id": new_id("ver"), "definition": definition, "description": None}
    with db.connect() as connection:
        saved = saved_versions.save(connection, ADA, metronome, **{**values, **more})
    assert saved is not None
    return saved[0]


def change(db: Database, version: Version, **changes: str | None) -> Changed:
    with db.connect() as connection:
        changed = saved_versions.change(connection, ADA, version.metronome_id, version.id, changes)
    assert changed is not None
    return changed


def archive(db: Database, version: Version) -> Changed:
    with db.connect() as connection:
        archived = saved_versions.archive(connection, ADA, version.metronome_id, version.id)
    assert archived is not None
    return archived


def start(db: Database, version: Version, **more: Any) -> tuple[str, int]:
    """Queue a run of a version; its id, and which revision it runs."""
    request = starts.RunRequest(version_id=version.id, **more)
    run, _ = starts.create(db, ADA, version.metronome_id, request, tell=lambda: None)
    with db.connect() as connection:
        revision = connection.execute(
            text("SELECT version_revision FROM runs WHERE id = :id"), {"id": run.id}
        ).scalar_one()
    return run.id, revision


def publish(connection: Connection, version: Version) -> None:
    publishing.publish(connection, ADA, version, NO_TRIGGERS)


def published(db: Database) -> tuple[list[str], list[str | None]]:
    """The ids of the published versions, and what the workflows say of it."""
    with db.connect() as connection:
        of = connection.exec_driver_sql("SELECT id FROM versions WHERE status = 'published'")
        told = connection.exec_driver_sql("SELECT published_version_id FROM metronomes")
        return list(of.scalars()), list(told.scalars())


def test_numbers_have_no_gap_and_no_double_under_load(db: Database) -> None:
    metronome = create(db)
    together = threading.Barrier(8)

    def work(worker: int) -> list[int | None]:
        together.wait(PATIENCE)
        made = []
        for turn in range(10):
            if worker % 2:
                made.append(save(db, metronome).version)
            else:
                with db.connect() as connection:
                    changes = {"definition": draft(worker * 100 + turn)}
                    metronomes.update(connection, ADA, metronome, changes)
                    versions.of_draft(connection, ADA, metronome)
        return made

    with ThreadPoolExecutor(8) as pool:
        numbers = [number for made in pool.map(work, range(8)) for number in made]
    assert sorted(number for number in numbers if number is not None) == list(range(40))
    with db.connect() as connection:
        # the draft's version holds the draft, whoever came last
        same = connection.exec_driver_sql(
            "SELECT m.definition::text = v.definition::text FROM metronomes m"
            " JOIN versions v ON v.id = m.draft_version_id"
        ).scalar_one_or_none()
        assert same is not False
        page, _ = versions.page(connection, "acme", metronome, Page(100))
    assert [one.version for one in page] == list(reversed(range(40)))


def test_no_more_is_read_than_a_page_may_hold(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    metronome = create(db)
    for _ in range(6):
        save(db, metronome, '{"note": "' + "x" * 1_000 + '"}')
    monkeypatch.setattr(versions, "PAGE_BYTES", 2_000)
    with db.connect() as connection:
        for offset, numbers in ((0, [5, 4, 3]), (1, [4, 3, 2]), (5, [0])):
            found, fit = versions.page(connection, "acme", metronome, Page(7, offset))
            assert [one.version for one in found] == numbers  # one more than fit, where there is
            assert fit == min(2, len(numbers))


def test_an_id_is_saved_once(db: Database) -> None:
    metronome = create(db)
    together = threading.Barrier(4)

    def work(worker: int) -> bool:
        together.wait(PATIENCE)
        with db.connect() as connection:
            saved = saved_versions.save(
                connection,
                ADA,
                metronome,
                version_id="ver_same",
                definition=draft(worker + 1),
                description=None,
            )
        assert saved is not None
        return saved[1]

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(work, range(4))) == [False, False, False, True]
    with db.connect() as connection:
        assert len(versions.page(connection, "acme", metronome, Page(10))[0]) == 1


def test_others_can_neither_save_nor_change(db: Database) -> None:
    metronome = create(db)
    version = save(db, metronome)
    with db.connect() as connection:
        assert (
            saved_versions.save(
                connection, EVE, metronome, version_id="ver_e", definition=None, description=None
            )
            is None
        )
        for result in (
            saved_versions.change(connection, EVE, metronome, version.id, {"description": "x"}),
            saved_versions.archive(connection, EVE, metronome, version.id),
            publishing.lock(connection, "evil", metronome),
        ):
            assert result is None
        assert versions.get(connection, "acme", metronome, version.id) == version


def test_runs_keep_the_revision_with_which_they_were_created(db: Database) -> None:
    version = save(db, create(db))
    _, first = start(db, version)
    changed = change(db, version, definition=draft(2))
    _, second = start(db, version)
    change(db, version, description="described")  # which is no revision
    _, third = start(db, version)
    assert (first, second, third, changed.version.revision) == (0, 1, 1, 1)
    raw = db.raw()
    assert versions.definition(raw, version.id, 0) == draft(1)
    assert versions.definition(raw, version.id, 1) == draft(2)
    raw.close()


def test_a_run_that_is_created_while_its_version_changes_has_one_of_both(
    db: Database, world: World
) -> None:
    version = save(db, create(db))
    # A run with the same key, not committed: whoever creates one waits for it behind its snapshot.
    holder = db.raw()
    holder.autocommit = False
    with holder.cursor() as cursor:
        cursor.execute(
            "INSERT INTO runs (id, organization_id, metronome_id, user_id, version_id,"
            " trigger_type, input, status, due_at, idempotency_key)"
            " VALUES ('run_0', 'acme', 'met_1', 'ada', 'v', 'manual', '{}', 'queued', now(), 'k')"
        )
    starting = world.begin(start, db, version, idempotency_key="k")
    world.wait_for_waiters()
    assert change(db, version, definition=draft(2)).outcome == "changed"
    holder.rollback()
    _, revision = starting.result(PATIENCE)
    assert revision == 0
    assert versions.definition(holder, version.id, revision) == draft(1)
    holder.close()


@pytest.mark.parametrize("act", ["change", "archive"])
def test_what_is_just_being_published_is_not_changed(db: Database, world: World, act: str) -> None:
    version = save(db, create(db))
    waiting: Future[Changed]
    with db.transaction() as connection:
        publishing.lock(connection, "acme", version.metronome_id)
        if act == "change":
            waiting = world.begin(change, db, version, definition=draft(2))
        else:
            waiting = world.begin(archive, db, version)
        world.wait_for_waiters()
        publish(connection, version)
    refused = waiting.result(PATIENCE)
    assert (refused.outcome, refused.version.status) == ("refused", "published")
    assert refused.version.revision == 0


def test_what_was_changed_during_the_wait_is_published_as_it_is_then(
    db: Database, world: World
) -> None:
    version = save(db, create(db))
    found: list[Version | None] = []

    def publish_it() -> None:
        with db.transaction() as connection:
            publishing.lock(connection, "acme", version.metronome_id)
            found.append(versions.get(connection, "acme", version.metronome_id, version.id))
            publish(connection, version)

    with db.transaction() as connection:
        publishing.lock(connection, "acme", version.metronome_id)
        publishing_it = world.begin(publish_it)
        world.wait_for_waiters()
        saved_versions.change(
            connection, ADA, version.metronome_id, version.id, {"definition": draft(2)}
        )
    publishing_it.result(PATIENCE)
    assert found[0] is not None
    assert found[0].revision == 1


def test_one_version_is_published_whoever_publishes_at_once(db: Database) -> None:
    metronome = create(db)
    made = [save(db, metronome, draft(number + 1)) for number in range(4)]
    together = threading.Barrier(8)

    def work(worker: int) -> None:
        together.wait(PATIENCE)
        for turn in range(5):
            with db.transaction() as connection:
                publishing.lock(connection, "acme", metronome)
                if worker == 7:
                    publishing.unpublish(connection, ADA, metronome, None)
                else:
                    publish(connection, made[(worker + turn) % 4])
            ids, told = published(db)
            assert len(ids) <= 1
            assert len(told) == 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    ids, told = published(db)
    assert ids == [one for one in told if one is not None]
    with db.connect() as connection:
        history = publishing.deployments(connection, "acme", metronome, Page(100))
        last = metronomes.get(connection, "acme", metronome)
    assert last is not None
    assert history[0].action == ("published" if ids else "unpublished")
    assert last.revision == 41  # each of them counts


def test_a_transaction_that_fails_changes_nothing(db: Database) -> None:
    version = save(db, create(db))

    def fail() -> None:
        with db.transaction() as connection:
            publishing.lock(connection, "acme", version.metronome_id)
            publish(connection, version)
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fail()
    assert published(db) == ([], [None])
    with db.connect() as connection:  # and the pool's connections are as they were
        level = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout")
        assert level.scalar_one() == "0"
        assert not _in_transaction(connection)


def _in_transaction(connection: Connection) -> bool:
    first, second = (connection.exec_driver_sql("SELECT now()").scalar_one() for _ in range(2))
    return bool(first == second)


def test_an_equal_version_is_found_among_the_newest(db: Database) -> None:
    metronome = create(db)
    first, second = save(db, metronome), save(db, metronome)
    other = save(db, metronome, draft(2))

    def look(definition: str | None) -> str | None:
        with db.connect() as connection:
            return saved_versions.equal(connection, metronome, definition)

    assert look(None) == look(draft(1)) == second.id
    assert look(draft(2)) == other.id
    assert look(draft(3)) is None
    archive(db, second)
    assert look(None) == first.id


def test_the_history_is_read_from_its_own_index(db: Database) -> None:
    version = save(db, create(db))
    with db.transaction() as connection:
        publishing.lock(connection, "acme", version.metronome_id)
        publish(connection, version)
    with db.connect() as connection:
        connection.exec_driver_sql(
            "INSERT INTO audit_events (id, organization_id, metronome_id, user_id, actor_user_id,"
            " actor_key_id, action) SELECT 'evt_' || n, 'acme', 'met_1', 'a', 'a', 'k',"
            " 'run.created' FROM generate_series(1, 20000) n"
        )
        connection.exec_driver_sql("ANALYZE audit_events")
        values = {
            "metronome_id": "met_1",
            "organization_id": "acme",
            "after": None,
            "limit": 51,
            "offset": 0,
        }
        plan = connection.execute(text(f"EXPLAIN {publishing._DEPLOYMENTS}"), values)
        assert "audit_events_deployments" in "\n".join(row[0] for row in plan)
