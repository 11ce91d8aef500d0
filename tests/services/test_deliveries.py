"""Deliveries that are cut off, overtaken or repeated come to one run all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.db import Database
from app.domain.errors import Conflict
from app.domain.models import Actor, Page
from app.services import deliveries, metronomes, publishing, starts
from app.services import triggers as service
from app.services.deliveries import Delivery
from app.store import triggers
from app.store.run_list import RunFilter
from app.store.run_list import page as runs_page
from app.store.trigger_events import Unmatched

ACTOR = Actor("key_1", "ada", "acme")
GIVEN = deliveries.delivery("email", {"subject": "hi"}, source_event_id="e1")


def definition(node: str = "mail", **trigger: Any) -> dict[str, Any]:
    """What listens for emails, or for something else."""
    trigger = {"subtype": "email", **trigger}
    return {
        "nodes": [{"id": node, "kind": "trigger", **trigger}, {"id": "finish", "kind": "end"}],
        "edges": [{"id": "e1", "source": node, "target": "finish"}],
    }


def publish(db: Database, metronome_id: str, **changes: Any) -> None:
    """Publish the draft, or another one."""
    publishing.publish_draft(db, ACTOR, metronome_id, changes, expected=None, connectors={})


def published(db: Database, **trigger: Any) -> str:
    """A published workflow that listens for emails, or for something else."""
    made = metronomes.create(db, ACTOR, name="test", definition=definition(**trigger))
    publish(db, made.id)
    return made.id


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any], int], list[None]]:
    """Does something when a delivery has just read who listens, so many times; when it did."""

    def install(act: Callable[[], Any], times: int) -> list[None]:
        create, done = starts.create, list[None]()

        def created(*arguments: Any, **more: Any) -> Any:
            if len(done) < times:
                done.append(act())
            return create(*arguments, **more)

        monkeypatch.setattr(starts, "create", created)
        return done

    return install


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
        publish(db, metronome_id, definition=definition("call", subtype="function"))
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


def test_a_delivery_that_meets_a_publish_is_for_the_new_version(
    db: Database, meanwhile: Any
) -> None:
    metronome_id = published(db)
    meanwhile(lambda: publish(db, metronome_id, definition=definition("post")), 1)
    ((_, status, run_id),) = deliver(db)
    assert (status, [run_id]) == ("matched", runs_of(db, metronome_id))
    with db.connect() as connection:
        (entry,) = connection.exec_driver_sql("SELECT entry_nodes FROM runs").scalars()
    assert entry == ["post"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"config": {"subjectContains": "order"}}, "subjectContains 'order' does not match 'hi'"),
        ({"subtype": "telegram"}, "the metronome does not listen for it any more"),
        (None, "the metronome is paused"),
    ],
)
def test_a_delivery_that_meets_a_publish_is_ignored_where_that_does_not_want_it(
    db: Database, meanwhile: Any, change: dict[str, Any] | None, reason: str
) -> None:
    metronome_id = published(db)

    def act() -> None:
        if change is None:
            metronomes.update(db, ACTOR, metronome_id, {"status": "paused"})
        else:
            publish(db, metronome_id, definition=definition(**change))

    meanwhile(act, 1)
    (event,) = deliveries.deliver(db, ACTOR, GIVEN, tell=lambda: None)
    assert (event.status, event.reason) == ("ignored", reason)
    assert runs_of(db, metronome_id) == []


def test_a_delivery_that_meets_one_publish_after_another_can_come_again(
    db: Database, meanwhile: Any
) -> None:
    metronome_id = published(db)
    numbers = iter(range(100))
    act = lambda: publish(db, metronome_id, definition=definition(f"n{next(numbers)}"))  # noqa: E731
    meanwhile(act, deliveries.TRIES)
    assert deliver(db) == [(metronome_id, "failed", None)]
    assert [status for _, status, _ in deliver(db)] == ["matched"]


def test_a_call_that_meets_a_publish_is_for_the_new_version(db: Database, meanwhile: Any) -> None:
    metronome_id = published(db, subtype="function", config={"slug": "go"})
    new = definition("other", subtype="function", config={"slug": "go"})
    meanwhile(lambda: publish(db, metronome_id, definition=new), 1)
    assert call(db, metronome_id).new
    assert len(runs_of(db, metronome_id)) == 1


def test_a_call_that_meets_the_end_of_its_trigger_is_refused_and_recorded(
    db: Database, meanwhile: Any
) -> None:
    metronome_id = published(db, subtype="function", config={"slug": "go"})
    meanwhile(lambda: publishing.unpublish(db, ACTOR, metronome_id, expected=None), 1)
    with pytest.raises(Conflict) as refused:
        call(db, metronome_id)
    assert refused.value.code == "not_published"
    with db.connect() as connection:
        statuses = connection.exec_driver_sql("SELECT status FROM trigger_events").scalars().all()
    assert statuses == ["ignored"]


def call(db: Database, metronome_id: str) -> service.Outcome:
    """Call the function trigger."""
    given = deliveries.delivery("function", {}, source_event_id="e1")
    return service.call(
        db, ACTOR, metronome_id, "go", given, idempotency_key=None, tell=lambda: None
    )


@pytest.mark.parametrize("held", ["paused", "at its limit"])
def test_an_event_that_was_ignored_for_a_passing_reason_is_tried_again(
    db: Database, held: str
) -> None:
    metronome_id = published(db)
    if held == "paused":
        metronomes.update(db, ACTOR, metronome_id, {"status": "paused"})
    else:
        limit = {"max_concurrent_runs": 1, "on_limit": "reject"}
        metronomes.update(db, ACTOR, metronome_id, {"concurrency": limit})
        starts.create(db, ACTOR, metronome_id, starts.RunRequest(), tell=lambda: None)
    first = deliveries.deliver(db, ACTOR, GIVEN, tell=lambda: None)
    assert [(one.status, one.passing) for one in first] == [("ignored", True)]
    assert deliveries.deliver(db, ACTOR, GIVEN, tell=lambda: None) == first
    metronomes.update(db, ACTOR, metronome_id, {"status": "active", "concurrency": None})
    ((_, status, run_id),) = deliver(db)
    assert (status, run_id) == ("matched", runs_of(db, metronome_id)[0])
    assert deliver(db) == [(metronome_id, "matched", run_id)]


def test_what_is_ignored_again_tells_the_reason_of_now(db: Database) -> None:
    metronome_id = published(db)
    metronomes.update(db, ACTOR, metronome_id, {"status": "paused"})
    (first,) = deliveries.deliver(db, ACTOR, GIVEN, tell=lambda: None)
    limit = {"max_concurrent_runs": 1, "on_limit": "reject"}
    metronomes.update(db, ACTOR, metronome_id, {"status": "active", "concurrency": limit})
    starts.create(db, ACTOR, metronome_id, starts.RunRequest(), tell=lambda: None)
    (second,) = deliveries.deliver(db, ACTOR, GIVEN, tell=lambda: None)
    assert (second.id, second.status) == (first.id, "ignored")
    assert "allows 1 run at once" in str(second.reason)
    publish(db, metronome_id, definition=definition(config={"subjectContains": "order"}))
    (last,) = deliveries.deliver(db, ACTOR, GIVEN, tell=lambda: None)
    assert (last.id, last.passing) == (first.id, False)
    publish(db, metronome_id, definition=definition())
    metronomes.update(db, ACTOR, metronome_id, {"concurrency": None})
    assert deliver(db) == [(metronome_id, "ignored", None)], "a filter that did not match is final"


def test_what_can_not_be_tried_again_is_answered_as_it_was(db: Database) -> None:
    metronome_id = published(db)
    metronomes.update(db, ACTOR, metronome_id, {"status": "paused"})
    first = deliver(db)
    publishing.unpublish(db, ACTOR, metronome_id, expected=None)
    assert deliver(db) == first == [(metronome_id, "ignored", None)]


@pytest.mark.parametrize("listens", [True, False])
def test_identical_deliveries_at_once_are_ignored_once(
    db: Database, monkeypatch: pytest.MonkeyPatch, listens: bool
) -> None:
    if listens:
        published(db, config={"subjectContains": "order"})
        published(db, config={"subjectContains": "invoice"})
    look, together = deliveries._look, threading.Barrier(4)

    def looked(*arguments: Any) -> Any:
        found = look(*arguments)
        together.wait(30)  # nobody has written anything yet
        return found

    monkeypatch.setattr(deliveries, "_look", looked)
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: deliveries.deliver(db, ACTOR, GIVEN, tell=tell), range(4)))
    assert told[0]
    assert all(one == told[0] for one in told)
    with db.connect() as connection:
        events = connection.exec_driver_sql("SELECT count(*) FROM trigger_events").scalar_one()
        counted = connection.exec_driver_sql("SELECT ignored_count FROM trigger_totals").scalars()
        assert list(counted) == [1] * (2 if listens else 0)
    assert events == len(told[0])


def tell() -> None:
    """Nobody is told."""
