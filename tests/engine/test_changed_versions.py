"""A run keeps the definition with which it was created, whatever becomes of its version."""

from __future__ import annotations

from typing import Any

from app.domain.models import Decision, Run
from app.services import metronomes, publishing, versions
from app.store import decisions
from tests.engine.conftest import ACTOR, Lab, node
from tests.engine.operators import child


def saying(text: str) -> dict[str, Any]:
    """A definition that waits for a decision, and then says something."""
    nodes = [node("trigger"), node("approval"), node("end", output={"said": text})]
    edges = [
        {"id": "e1", "source": "trigger", "target": "approval"},
        {"id": "e2", "source": "approval", "target": "end", "sourceHandle": "approved"},
    ]
    return {"nodes": nodes, "edges": edges}


def approve(lab: Lab, run: Run) -> None:
    """Let a run go on that waits."""
    with lab.db.connect() as connection:
        decisions.decide(connection, ACTOR, run.metronome_id, run.id, Decision(approved=True))
    lab.tell()


def test_a_run_goes_on_with_the_definition_with_which_it_began(lab: Lab) -> None:
    workflow = metronomes.create(lab.db, ACTOR, name="w", definition=saying("draft")).id
    version, _ = versions.save(lab.db, ACTOR, workflow, definition=saying("first"))
    queued = lab.begin(workflow, version_id=version.id)  # claimed only after the change
    executor = lab.start()
    waiting = lab.begin(workflow, version_id=version.id)
    lab.until(waiting, "waiting_approval")
    lab.stop(executor)
    versions.change(lab.db, ACTOR, workflow, version.id, {"definition": saying("second")})
    later = lab.begin(workflow, version_id=version.id)
    lab.start()  # which has read none of them before
    for run, said in ((queued, "first"), (waiting, "first"), (later, "second")):
        lab.until(run, "waiting_approval")
        approve(lab, run)
        assert lab.until(run, "completed").output == {"said": said}


def test_an_executor_that_knows_the_version_hears_of_the_change(lab: Lab) -> None:
    workflow = metronomes.create(lab.db, ACTOR, name="w", definition=saying("draft")).id
    version, _ = versions.save(lab.db, ACTOR, workflow, definition=saying("0"))
    lab.start()
    for number in range(1, 4):
        run = lab.begin(workflow, version_id=version.id)
        lab.until(run, "waiting_approval")
        changes = {"definition": saying(str(number))}
        versions.change(lab.db, ACTOR, workflow, version.id, changes)
        approve(lab, run)
        assert lab.until(run, "completed").output == {"said": str(number - 1)}


def test_a_retry_runs_the_same_definition(lab: Lab) -> None:
    workflow = metronomes.create(lab.db, ACTOR, name="w", definition=saying("draft")).id
    version, _ = versions.save(lab.db, ACTOR, workflow, definition=saying("first"))
    run = lab.begin(workflow, version_id=version.id)
    lab.cancel(run)
    versions.change(lab.db, ACTOR, workflow, version.id, {"definition": saying("second")})
    versions.archive(lab.db, ACTOR, workflow, version.id)
    lab.retry(run)
    lab.start()
    lab.until(run, "waiting_approval")
    approve(lab, run)
    assert lab.until(run, "completed").output == {"said": "first"}


def test_a_nested_run_keeps_what_was_published_when_it_began(lab: Lab) -> None:
    below = metronomes.create(lab.db, ACTOR, name="below", definition=saying("draft")).id
    version, _ = versions.save(lab.db, ACTOR, below, definition=saying("zero"))
    versions.change(lab.db, ACTOR, below, version.id, {"definition": saying("one")})
    publishing.publish(lab.db, ACTOR, below, version.id, {}, expected=None, connectors={})
    executor = lab.start()
    call = node("metronome", "call", workflowId=below)
    above = lab.queue(node("trigger"), call, node("end"))
    run = child(lab, above)
    lab.until(run, "waiting_approval")
    lab.stop(executor)
    publishing.unpublish(lab.db, ACTOR, below, expected=None)
    versions.change(lab.db, ACTOR, below, version.id, {"definition": saying("two")})
    lab.start()
    approve(lab, run)
    assert lab.until(run, "completed").output == {"said": "one"}
    lab.until(above, "completed")
