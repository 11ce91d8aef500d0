"""A run begins at the triggers that have started it, not at their neighbours of the same type."""

from __future__ import annotations

from typing import Any

import pytest

from app.services import deliveries, metronomes, publishing, triggers
from app.services.starts import RunRequest
from app.services.triggers import Trial
from tests.engine.conftest import ACTOR, Lab, node

EDGES = [("one", "after-one"), ("two", "after-two"), ("after-one", "end"), ("after-two", "end")]


def workflow(lab: Lab, kind: str, **configs: dict[str, Any]) -> str:
    """A published workflow with two triggers of a kind, each with a node of its own behind it."""
    nodes = [
        node("trigger", name, **config) | {"subtype": kind} for name, config in configs.items()
    ]
    nodes += [node("transform", f"after-{name}", output={"by": name}) for name in configs]
    edges = [{"id": f"{a}-{b}", "source": a, "target": b} for a, b in EDGES]
    definition = {"nodes": [*nodes, node("end", "end")], "edges": edges}
    made = metronomes.create(lab.db, ACTOR, name="test", definition=definition)
    publishing.publish_draft(lab.db, ACTOR, made.id, {}, expected=None, connectors={})
    return made.id


def completed(lab: Lab, metronome_id: str, run_id: str | None) -> set[str]:
    """The nodes that have run, once the run has completed."""
    run = lab.until(lab.get_by(metronome_id, run_id or ""), "completed")
    return {name for name, status in lab.statuses(run) if status == "completed"}


@pytest.mark.parametrize("slug", ["one", "two"])
def test_a_call_begins_at_the_trigger_that_is_called(lab: Lab, slug: str) -> None:
    metronome_id = workflow(lab, "function", one={"slug": "one"}, two={"slug": "two"})
    given = deliveries.delivery("function", {})
    found = triggers.call(
        lab.db, ACTOR, metronome_id, slug, given, idempotency_key=None, tell=lab.tell
    )
    lab.start()
    assert found.run is not None
    assert completed(lab, metronome_id, found.run.id) == {slug, f"after-{slug}", "end"}


@pytest.mark.parametrize(
    ("subject", "expected"),
    [("order", {"one"}), ("invoice", {"two"}), ("an order and its invoice", {"one", "two"})],
)
def test_an_event_begins_at_all_triggers_that_it_matches(
    lab: Lab, subject: str, expected: set[str]
) -> None:
    metronome_id = workflow(
        lab, "email", one={"subjectContains": "order"}, two={"subjectContains": "invoice"}
    )
    given = deliveries.delivery("email", {"subject": subject})
    (event,) = deliveries.deliver(lab.db, ACTOR, given, tell=lab.tell)
    trial = Trial(deliveries.delivery("email", {"subject": subject}, sample=True), RunRequest())
    tried = triggers.test(lab.db, ACTOR, metronome_id, trial, tell=lab.tell, free=lab.free)
    lab.start()
    assert tried.run is not None
    nodes = expected | {f"after-{name}" for name in expected} | {"end"}
    assert completed(lab, metronome_id, event.run_id) == nodes
    assert completed(lab, metronome_id, tried.run.id) == nodes
