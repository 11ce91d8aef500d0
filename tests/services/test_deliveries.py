"""Deliveries that are cut off, overtaken or repeated come to one run all the same."""

from __future__ import annotations

from typing import Any

import pytest

from app.db import Database
from app.domain.models import Actor, Page
from app.services import deliveries, metronomes, publishing, starts
from app.services.deliveries import Delivery
from app.store import triggers
from app.store.run_list import RunFilter
from app.store.run_list import page as runs_page
from app.store.trigger_events import Unmatched

ACTOR = Actor("key_1", "ada", "acme")
GIVEN = deliveries.delivery("email", {"subject": "hi"}, source_event_id="e1")


def published(db: Database) -> str:
    """A published workflow that listens for emails."""
    definition = {
        "nodes": [
            {"id": "mail", "kind": "trigger", "subtype": "email"},
            {"id": "finish", "kind": "end"},
        ],
        "edges": [{"id": "e1", "source": "mail", "target": "finish"}],
    }
    made = metronomes.create(db, ACTOR, name="test", definition=definition)
    publishing.publish_draft(db, ACTOR, made.id, {}, expected=None, connectors={})
    return made.id


def deliver(db: Database, given: Delivery = GIVEN) -> list[tuple[str | None, str, str | None]]:
    """What a delivery came to: workflow, status, run."""
    found = deliveries.deliver(db, ACTOR, given, tell=lambda: None)
    return [(event.metronome_id, event.status, event.run_id) for event in found]


def runs_of(db: Database, metronome_id: str) -> list[str]:
    """The ids of a workflow's runs."""
    with db.connect() as connection:
        found = runs_page(connection, "acme", metronome_id, RunFilter(), Page(10))
    return [run.id for run in found]


def test_a_delivery_that_was_cut_off_is_completed_by_its_repetition(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = published(db), published(db)
    create = starts.create

    def cut_off(db: Database, actor: Actor, metronome_id: str, *rest: Any, **more: Any) -> Any:
        if metronome_id == two:
            raise ConnectionError
        return create(db, actor, metronome_id, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(starts, "create", cut_off)
        with pytest.raises(ConnectionError):
            deliver(db)
    (before,) = runs_of(db, one)
    late = published(db)
    first = deliver(db)
    assert first == [(one, "matched", before), (two, "matched", *runs_of(db, two))]
    assert deliver(db) == first
    assert runs_of(db, late) == []


@pytest.mark.parametrize("change", ["paused", "archived", "unpublished", "another version"])
def test_a_workflow_that_was_changed_meanwhile_does_not_run(db: Database, change: str) -> None:
    metronome_id = published(db)
    with db.connect() as connection:
        listening = triggers.listeners(connection, "acme", "email")
    if change == "unpublished":
        publishing.unpublish(db, ACTOR, metronome_id, expected=None)
    elif change == "another version":
        definition = {"nodes": [{"id": "call", "kind": "trigger", "subtype": "function"}]}
        publishing.publish_draft(
            db, ACTOR, metronome_id, {"definition": definition}, expected=None, connectors={}
        )
    else:
        metronomes.update(db, ACTOR, metronome_id, {"status": change})
    told = deliveries.start_matching(db, ACTOR, GIVEN, listening, tell=lambda: None)
    assert isinstance(told, Unmatched)
    assert told.status == "ignored"
    assert runs_of(db, metronome_id) == []


def test_a_key_that_was_used_for_something_else_is_told(db: Database) -> None:
    metronome_id = published(db)
    wanted = starts.RunRequest(idempotency_key=str(GIVEN.idempotency_key))
    run, _ = starts.create(db, ACTOR, metronome_id, wanted, tell=lambda: None)
    assert deliver(db) == [(metronome_id, "ignored", None)]
    assert runs_of(db, metronome_id) == [run.id]
