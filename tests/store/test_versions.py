from __future__ import annotations

import json

from app.db import Database
from app.domain.models import Actor, Page
from app.store import metronomes, versions
from app.store.metronomes import NewMetronome
from app.store.versions import NewVersion

ADA = Actor("key_a", "ada", "acme")
EVE = Actor("key_e", "eve", "evil")


def draft(number: int) -> str:
    nodes = [{"id": f"n{index}", "kind": "end"} for index in range(number)]
    return json.dumps({"nodes": nodes, "edges": []})


def create(db: Database) -> str:
    with db.connect() as connection:
        new = NewMetronome("met_1", "n", None, "draft", draft(1), "told")
        metronomes.create(connection, ADA, new)
    return new.id


def rows(db: Database) -> list[tuple[int | None, int, int, str]]:
    with db.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT version, node_count, edge_count, trigger_summary FROM versions ORDER BY id"
        )
        return [tuple(row) for row in found]


def test_a_draft_becomes_a_version_once_and_gets_no_number(db: Database) -> None:
    metronome = create(db)
    with db.connect() as connection:
        first = versions.of_draft(connection, ADA, metronome)
        assert first is not None
        assert versions.of_draft(connection, ADA, metronome) == first
        metronomes.update(connection, ADA, metronome, {"definition": draft(2)})
        assert versions.of_draft(connection, ADA, metronome) != first
    assert rows(db) == [(None, 1, 0, "told"), (None, 2, 0, "told")]


def test_a_version_of_its_own_leaves_the_draft(db: Database) -> None:
    metronome = create(db)
    with db.connect() as connection:
        own = versions.create(connection, ADA, metronome, NewVersion(draft(3), 3, 0))
        assert versions.of_draft(connection, ADA, metronome) != own
    assert rows(db) == [(None, 3, 0, "told"), (None, 1, 0, "told")]


def test_what_was_only_run_is_in_no_list_and_no_audit(db: Database) -> None:
    metronome = create(db)
    with db.connect() as connection:
        own = versions.create(connection, ADA, metronome, NewVersion(draft(3), 3, 0)) or ""
        assert versions.of_draft(connection, ADA, metronome)
        assert versions.page(connection, "acme", metronome, Page(10)) == ([], 0)
        found = versions.get(connection, "acme", metronome, own)
        assert found is not None
        assert (found.version, found.status, found.node_count) == (None, "saved", 3)
        audits = connection.exec_driver_sql("SELECT action FROM audit_events").scalars().all()
    assert audits == ["metronome.created"]


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
    assert versions.definition(raw, version, 0) == draft(1)
    assert versions.definition(raw, version, 1) is None
    assert versions.definition(raw, "ver_unknown", 0) is None
    raw.close()
