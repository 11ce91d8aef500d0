"""Deliveries are recorded and counted together, whatever they come to."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from app.db import Database
from app.domain.models import NewEvent, Page, TriggerEvent
from app.ids import new_id
from app.store import trigger_events
from app.store.trigger_events import EventFilter, Unmatched

_CREATED = text(f"""
WITH created AS (
    SELECT :run_id AS id, 'org_1' AS organization_id, 'met_1' AS metronome_id, 'eve' AS user_id
    WHERE :new
),
{trigger_events.recorded("created")}
SELECT count(*) FROM created
""")


def event(**changes: Any) -> NewEvent:
    """A delivery."""
    values = {"trigger_type": "email", "source_event_id": None, "summary": None, "payload": "{}"}
    return NewEvent(new_id("tev"), **{**values, **changes})


def start(db: Database, delivery: NewEvent | None, *, new: bool = True) -> str:
    """Record the delivery as creating a run does it; the run's id."""
    run_id = new_id("run")
    values = trigger_events.parameters(delivery)
    with db.connect() as connection:
        connection.execute(_CREATED, values | {"run_id": run_id, "new": new})
    return run_id


def record(db: Database, *unmatched: Unmatched) -> list[TriggerEvent]:
    """Record deliveries that start nothing."""
    with db.connect() as connection:
        return trigger_events.insert(connection, "org_1", unmatched)


def listed(db: Database, page: Page | None = None, **wanted: Any) -> list[TriggerEvent]:
    """What is in the list."""
    with db.connect() as connection:
        return trigger_events.page(connection, "org_1", EventFilter(**wanted), page or Page(100))


def totals(db: Database) -> list[dict[str, Any]]:
    """The totals, by type."""
    with db.connect() as connection:
        found = connection.execute(text("SELECT * FROM trigger_totals ORDER BY trigger_type"))
        return [dict(row) for row in found.mappings()]


@pytest.fixture
def workflow(db: Database) -> Database:
    """A database with one workflow."""
    with db.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO metronomes (id, organization_id, user_id, name, status, definition)"
                " VALUES ('met_1', 'org_1', 'ada', 'test', 'active', '{}')"
            )
        )
    return db


def test_an_event_is_recorded_and_counted_with_its_run(workflow: Database) -> None:
    first = event(source_event_id="s1", summary="hello", payload='{"a": 1}')
    run_id = start(workflow, first)
    second = event()
    last = start(workflow, second)
    found = listed(workflow)[1]
    assert (found.id, found.run_id, found.user_id) == (first.id, run_id, "ada")
    assert (found.status, found.reason, found.payload) == ("matched", None, {"a": 1})
    (total,) = totals(workflow)
    assert (total["matched_count"], total["ignored_count"]) == (2, 0)
    assert (total["last_matched_event_id"], total["last_run_id"]) == (second.id, last)
    assert total["last_matched_at"] == listed(workflow)[0].created_at


def test_nothing_is_recorded_without_a_run_or_an_event(workflow: Database) -> None:
    start(workflow, event(), new=False)
    start(workflow, None)
    assert listed(workflow) == []
    assert totals(workflow) == []


def test_deliveries_that_start_nothing_are_counted_by_what_they_came_to(
    workflow: Database,
) -> None:
    matched = event()
    start(workflow, matched)
    given = [
        Unmatched(event(), "ignored", "no", "met_1"),
        Unmatched(event(), "ignored", "no", "met_1"),
        Unmatched(event(trigger_type="github"), "failed", "broken", "met_1"),
        Unmatched(event(), "ignored", "nobody listens", None),
    ]
    found = record(workflow, *given)
    assert [one.id for one in found] == [one.event.id for one in given]
    assert [one.reason for one in found] == [one.reason for one in given]
    email, github = totals(workflow)
    assert (email["matched_count"], email["ignored_count"], email["failed_count"]) == (1, 2, 0)
    assert email["last_event_id"] == given[1].event.id
    assert email["last_matched_event_id"] == matched.id
    assert (github["failed_count"], github["last_matched_event_id"]) == (1, None)
    assert found[3].metronome_id is None
    assert found[3].user_id is None


def test_nothing_is_recorded_of_workflows_of_others(workflow: Database) -> None:
    with workflow.connect() as connection:
        given = [Unmatched(event(), "ignored", "no", "met_1")]
        assert trigger_events.insert(connection, "org_2", given) == []
        assert trigger_events.insert(connection, "org_1", []) == []
    assert listed(workflow) == []
    assert totals(workflow) == []


def test_a_delivery_is_found_by_the_senders_id(workflow: Database) -> None:
    start(workflow, event(source_event_id="s1"))
    record(workflow, Unmatched(event(source_event_id="s1"), "ignored", "no", None))
    record(workflow, Unmatched(event(source_event_id="s2"), "ignored", "no", None))
    with workflow.connect() as connection:
        found = trigger_events.of_source(connection, "org_1", "email", "s1")
        assert [one.status for one in found] == ["matched", "ignored"]
        assert trigger_events.of_source(connection, "org_2", "email", "s1") == []
        assert trigger_events.of_source(connection, "org_1", "github", "s1") == []
        assert trigger_events.with_ids(connection, "org_1", [found[0].id]) == found[:1]
        assert trigger_events.with_ids(connection, "org_2", [found[0].id]) == []


def test_lists_are_filtered_and_turn_pages(workflow: Database) -> None:
    start(workflow, event())
    record(
        workflow,
        Unmatched(event(trigger_type="github"), "ignored", "no", "met_1"),
        Unmatched(event(), "ignored", "nobody listens", None),
    )
    everything = listed(workflow)
    assert len(everything) == 3
    assert listed(workflow, Page(10, after=everything[0].id)) == everything[1:]
    assert listed(workflow, Page(1, offset=1)) == everything[1:2]
    assert listed(workflow, metronome_id="met_1") == everything[1:]
    assert listed(workflow, statuses=("matched",)) == everything[2:]
    assert listed(workflow, trigger_type="github") == everything[1:2]
