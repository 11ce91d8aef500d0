"""Which workflows a metronome node may run, and how deep."""

from __future__ import annotations

from typing import Any

from app.domain.models import Actor
from app.services import metronomes
from tests.engine.conftest import ACTOR, Lab, node
from tests.engine.operators import (
    calls,
    child,
    children,
    is_whole,
    sql,
)


def test_a_workflow_is_named_by_its_name(lab: Lab) -> None:
    lab.start()
    lab.workflow("the one", node("trigger"), node("end", output={"n": 1}))
    call = node("metronome", "call", workflowName="{{ trigger.input.which }}")
    run = lab.queue(node("trigger"), call, node("end"), input={"which": "the one"})
    answered = lab.until(run, "completed")
    assert answered.output is not None
    assert answered.output["output"] == {"n": 1}


def refused(lab: Lab, **config: Any) -> str:
    """The error with which a run fails whose nested run can't be started."""
    run = lab.queue(
        node("trigger"), node("metronome", "call", **config), node("end"), max_attempts=3
    )
    answered = lab.until(run, "failed")
    assert answered.attempt_count == 1, "trying again can't help"
    assert children(lab, run) == []
    return str(answered.error).removeprefix("node call failed: ")


def test_a_workflow_that_can_not_be_run_fails_the_node_with_a_clear_error(lab: Lab) -> None:
    lab.start()
    for _ in range(2):
        lab.workflow("twice", node("trigger"), node("end"))
    other = Actor("key_other", "user_other", "org_other")
    foreign = lab.workflow("foreign", node("trigger"), node("end"), actor=other)
    old = lab.workflow("old", node("trigger"), node("end"))
    metronomes.archive(lab.db, ACTOR, old)

    assert refused(lab, workflowId="met_nowhere") == "there is no workflow 'met_nowhere'"
    assert refused(lab, workflowName="nobody") == "there is no workflow 'nobody'"
    assert refused(lab, workflowName="twice") == (
        "there are several workflows 'twice'; use workflowId"
    )
    assert refused(lab, workflowId=old) == f"the workflow '{old}' is archived"
    assert refused(lab, workflowName="old") == "there is no workflow 'old'"
    assert refused(lab, workflowId=foreign) == f"there is no workflow '{foreign}'"
    assert refused(lab, workflowName="foreign") == "there is no workflow 'foreign'"
    is_whole(lab)


def test_a_draft_without_a_version_becomes_one_and_keeps_it(lab: Lab) -> None:
    lab.start()
    below = lab.workflow("child", node("trigger"), node("end"))
    both = [lab.queue(node("trigger"), calls(below), node("end")) for _ in range(2)]
    for run in both:
        lab.until(run, "completed")
    ((version,),) = sql(lab, "SELECT id FROM versions WHERE metronome_id = :id", id=below)
    assert {child(lab, run).version_id for run in both} == {version}


def test_a_workflow_can_not_run_inside_of_itself(lab: Lab) -> None:
    lab.start()
    own = lab.workflow("own", node("trigger"), node("end"))
    redefine(lab, own, calls(own))
    run = lab.begin(own)
    answered = lab.until(run, "failed")
    assert answered.error == f"node call failed: the workflow '{own}' would run inside of itself"
    assert children(lab, run) == []


def test_nor_inside_of_one_that_it_runs_itself(lab: Lab) -> None:
    lab.start()
    a = lab.workflow("a", node("trigger"), node("end"))
    b = lab.workflow("b", node("trigger"), calls(a), node("end"))
    redefine(lab, a, calls(b))
    run = lab.begin(a)
    answered = lab.until(run, "failed")
    assert f"the workflow '{a}' would run inside of itself" in str(answered.error)
    (nested,) = children(lab, run)
    assert children(lab, nested) == []
    is_whole(lab)


def redefine(lab: Lab, workflow_id: str, call: dict[str, Any]) -> None:
    """Put a call into a workflow that is there already."""
    edges = [{"id": "e", "source": "trigger", "target": "call"}]
    changes = {"definition": {"nodes": [node("trigger"), call], "edges": edges}}
    metronomes.update(lab.db, ACTOR, workflow_id, changes)


def test_runs_are_not_nested_deeper_than_allowed(lab: Lab) -> None:
    lab.start()
    below = lab.workflow("level 12", node("trigger"), node("end"))
    for level in range(11, 0, -1):
        below = lab.workflow(f"level {level}", node("trigger"), calls(below), node("end"))
    run = lab.begin(below)
    answered = lab.until(run, "failed")
    assert answered.error is not None
    assert answered.error.endswith("runs are nested 10 deep at most, and this one already is")
    assert sql(lab, "SELECT max(depth), count(*) FROM runs") == [(10, 11)]
    is_whole(lab)
