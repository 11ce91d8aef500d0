"""What is to be published is looked at before the workflow is locked, and is what is published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.db import Database
from app.domain.errors import Conflict, Invalid
from app.domain.models import Actor, Metronome
from app.services import metronomes, publishing, validation, versions
from tests.api.definitions import publishable

ACTOR = Actor("key_1", "ada", "acme")
UNFIT: dict[str, Any] = {"nodes": [{"id": "say", "kind": "transform"}], "edges": []}


@pytest.fixture
def workflow(db: Database) -> str:
    """A workflow whose draft can be published."""
    return metronomes.create(db, ACTOR, name="test", definition=publishable()).id


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any], int], list[None]]:
    """Does something when a definition has just been looked at, so many times; when it did."""

    def install(act: Callable[[], Any], times: int) -> list[None]:
        look, done = validation.demand_publishable, list[None]()

        def looked(*arguments: Any) -> None:
            try:
                look(*arguments)
            finally:
                if len(done) < times:
                    done.append(act())

        monkeypatch.setattr(validation, "demand_publishable", looked)
        return done

    return install


def publish(db: Database, workflow: str, **changes: Any) -> Metronome:
    """Publish the draft."""
    return publishing.publish_draft(db, ACTOR, workflow, changes, expected=None, connectors={})


def test_the_workflow_is_not_locked_while_its_definition_is_looked_at(
    db: Database, workflow: str, meanwhile: Any
) -> None:
    def lock() -> None:
        connection = db.raw()
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT FROM metronomes FOR UPDATE NOWAIT")
        finally:
            connection.close()

    done = meanwhile(lock, 3)
    publish(db, workflow)
    publish(db, workflow, definition=publishable("new"))
    saved, _ = versions.save(db, ACTOR, workflow, definition=publishable("other"))
    publishing.publish(db, ACTOR, workflow, saved.id, {}, expected=None, connectors={})
    assert len(done) == 3


def test_a_draft_that_is_changed_meanwhile_is_looked_at_again(
    db: Database, workflow: str, meanwhile: Any
) -> None:
    meanwhile(lambda: metronomes.update(db, ACTOR, workflow, {"definition": UNFIT}), 1)
    with pytest.raises(Invalid) as refused:
        publish(db, workflow)
    assert refused.value.code == "not_publishable"
    assert metronomes.get(db, ACTOR, workflow).published_version_id is None


def test_a_draft_that_is_mended_meanwhile_is_published(
    db: Database, workflow: str, meanwhile: Any
) -> None:
    metronomes.update(db, ACTOR, workflow, {"definition": UNFIT})
    meanwhile(lambda: metronomes.update(db, ACTOR, workflow, {"definition": publishable("x")}), 1)
    published = publish(db, workflow)
    assert published.definition == publishable("x")
    assert published.status == "active"


def test_a_version_that_is_changed_meanwhile_is_looked_at_again(
    db: Database, workflow: str, meanwhile: Any
) -> None:
    saved, _ = versions.save(db, ACTOR, workflow)
    meanwhile(lambda: versions.change(db, ACTOR, workflow, saved.id, {"definition": UNFIT}), 1)
    with pytest.raises(Invalid) as refused:
        publishing.publish(db, ACTOR, workflow, saved.id, {}, expected=None, connectors={})
    assert refused.value.code == "not_publishable"


def test_a_draft_that_never_stands_still_is_a_conflict(
    db: Database, workflow: str, meanwhile: Any
) -> None:
    numbers = iter(range(100))

    def change() -> None:
        metronomes.update(db, ACTOR, workflow, {"name": f"name {next(numbers)}"})

    meanwhile(change, 100)
    with pytest.raises(Conflict):
        publish(db, workflow)
    assert publish(db, workflow, definition=publishable()).status == "active"
