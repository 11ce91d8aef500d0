from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

from app.db import Database
from app.domain.models import Actor
from app.store import metronomes, versions
from app.store.metronomes import NewMetronome
from app.store.versions import NewVersion
from tests.processes import PATIENCE

ADA = Actor("key_a", "ada", "acme")
EVE = Actor("key_e", "eve", "evil")


def draft(number: int) -> str:
    nodes = [{"id": f"n{index}", "kind": "end"} for index in range(number)]
    return json.dumps({"nodes": nodes, "edges": []})


def create(db: Database) -> str:
    with db.connect() as connection:
        new = NewMetronome("met_1", "n", None, "draft", draft(1), "told")
        return metronomes.create(connection, ADA, new).id


def rows(db: Database) -> list[tuple[int, int, int, str]]:
    with db.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT version, node_count, edge_count, trigger_summary FROM versions ORDER BY version"
        )
        return [tuple(row) for row in found]


def test_a_draft_becomes_a_version_once(db: Database) -> None:
    metronome = create(db)
    with db.connect() as connection:
        first = versions.of_draft(connection, ADA, metronome)
        assert first is not None
        assert versions.of_draft(connection, ADA, metronome) == first
        metronomes.update(connection, ADA, metronome, {"definition": draft(2)})
        assert versions.of_draft(connection, ADA, metronome) != first
    assert rows(db) == [(0, 1, 0, "told"), (1, 2, 0, "told")]


def test_a_version_of_its_own_leaves_the_draft(db: Database) -> None:
    metronome = create(db)
    with db.connect() as connection:
        own = versions.create(connection, ADA, metronome, NewVersion(draft(3), 3, 0))
        assert versions.of_draft(connection, ADA, metronome) != own
    assert rows(db) == [(0, 3, 0, "told"), (1, 1, 0, "told")]


def test_others_can_make_none(db: Database) -> None:
    metronome = create(db)
    with db.connect() as connection:
        assert versions.of_draft(connection, EVE, metronome) is None
        assert versions.create(connection, EVE, metronome, NewVersion(draft(1), 1, 0)) is None
        assert versions.of_draft(connection, ADA, "met_2") is None
    assert rows(db) == []


def test_the_executor_gets_the_text_that_was_saved(db: Database) -> None:
    metronome = create(db)
    with db.connect() as connection:
        version = versions.of_draft(connection, ADA, metronome) or ""
    raw = db.raw()
    assert versions.definition(raw, version) == draft(1)
    assert versions.definition(raw, "ver_unknown") is None
    raw.close()


def test_numbers_have_no_gap_and_no_double_under_load(db: Database) -> None:
    metronome = create(db)
    together = threading.Barrier(8)

    def work(worker: int) -> set[str | None]:
        made: set[str | None] = set()
        together.wait(PATIENCE)
        for turn in range(10):
            with db.connect() as connection:
                if worker % 2:
                    new = NewVersion(draft(1), 1, 0)
                    made.add(versions.create(connection, ADA, metronome, new))
                else:
                    changes = {"definition": draft(worker * 100 + turn)}
                    metronomes.update(connection, ADA, metronome, changes)
                    made.add(versions.of_draft(connection, ADA, metronome))
        return made

    with ThreadPoolExecutor(8) as pool:
        made = set().union(*pool.map(work, range(8)))
    assert None not in made
    numbers = [version for version, *_ in rows(db)]
    assert numbers == list(range(len(made)))
    # the draft's version holds the draft, whoever came last
    with db.connect() as connection:
        same = connection.exec_driver_sql(
            "SELECT m.definition::text = v.definition::text FROM metronomes m"
            " JOIN versions v ON v.id = m.draft_version_id"
        ).scalar_one_or_none()
        assert same is not False


def test_each_version_is_in_the_audit_once(db: Database) -> None:
    metronome = create(db)
    with db.connect() as connection:
        version = versions.of_draft(connection, ADA, metronome)
        versions.of_draft(connection, ADA, metronome)
        audits = connection.exec_driver_sql(
            "SELECT version_id, actor_user_id, user_id, payload FROM audit_events"
            " WHERE action = 'version.saved'"
        ).all()
    assert [tuple(row) for row in audits] == [(version, "ada", "ada", {"version": 0})]
