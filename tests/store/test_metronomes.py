from __future__ import annotations

from app.db import Database
from app.domain.models import Actor, Page
from app.store import metronome_list, metronomes, versions
from app.store.metronome_list import MetronomeFilter
from app.store.metronomes import NewMetronome

ADA = Actor("key_a", "ada", "acme")
EVE = Actor("key_e", "eve", "evil")
OTHER = '{"nodes": [], "edges": []}'
TEXT = '{"edges": [], "nodes":[{"id":"a","kind":"end"}]}'


def create(db: Database, number: int = 1, actor: Actor = ADA) -> str:
    with db.connect() as connection:
        new = NewMetronome(f"met_{number}", "n", None, "draft", TEXT, None)
        made = metronomes.create(connection, actor, new)
    assert made is not None
    return made.id


def test_a_workflow_is_seen_by_its_organization_alone(db: Database) -> None:
    metronome = create(db)
    with db.connect() as connection:
        found = metronomes.get(connection, "acme", metronome)
        assert found is not None
        assert list(found.definition) == ["edges", "nodes"]
        assert metronomes.get(connection, "evil", metronome) is None
        assert metronomes.update(connection, EVE, metronome, {"name": "mine"}) is None
        assert metronomes.archive(connection, EVE, metronome) is None
        assert metronomes.transfer(connection, EVE, metronome, "eve") is None
        assert metronomes.get(connection, "acme", metronome) == found


def test_a_new_definition_has_no_version_yet(db: Database) -> None:
    metronome = create(db)
    draft = "SELECT draft_version_id FROM metronomes"
    with db.connect() as connection:
        version = versions.of_draft(connection, ADA, metronome)
        metronomes.update(connection, ADA, metronome, {"name": "new", "description": "d"})
        assert connection.exec_driver_sql(draft).scalar_one() == version
        metronomes.update(connection, ADA, metronome, {"definition": TEXT})
        assert connection.exec_driver_sql(draft).scalar_one() == version
        metronomes.update(connection, ADA, metronome, {"definition": OTHER})
        assert connection.exec_driver_sql(draft).scalar_one() is None


def test_the_published_version_comes_with_its_number(db: Database) -> None:
    metronome = create(db)
    with db.connect() as connection:
        versions.of_draft(connection, ADA, metronome)
        connection.exec_driver_sql("UPDATE versions SET version = 0")
        connection.exec_driver_sql("UPDATE metronomes SET published_version_id = draft_version_id")
        found = metronomes.get(connection, "acme", metronome)
        (listed,) = metronome_list.page(connection, "acme", MetronomeFilter(), Page(9))
        assert found == listed
        assert found is not None
        assert found.published_version_number == 0


def test_archived_ones_are_listed_when_asked_for(db: Database) -> None:
    for number in (1, 2, 3):
        create(db, number)
    create(db, 4, EVE)
    with db.connect() as connection:
        metronomes.archive(connection, ADA, "met_2")

        def listed(*statuses: str, archived: bool = False) -> list[str]:
            wanted = MetronomeFilter(statuses=statuses, include_archived=archived)
            found = metronome_list.page(connection, "acme", wanted, Page(9))
            return [one.id for one in found]

        assert listed() == ["met_3", "met_1"]
        assert listed(archived=True) == ["met_3", "met_2", "met_1"]
        assert listed("archived") == ["met_2"]
        assert listed("draft", "archived") == ["met_3", "met_2", "met_1"]
