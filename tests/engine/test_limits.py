"""Limits on concurrent runs: the policies, and what has a place in a group."""

from __future__ import annotations

import itertools

import pytest

from app.domain.errors import Conflict, Invalid
from app.domain.models import Run
from app.services import concurrency, transitions
from tests.engine.conftest import ACTOR, Lab, node
from tests.engine.limits import GATED, admitted, limit, limited, most_at_work, places, stalled
from tests.engine.operators import is_whole, sql, waits
from tests.processes import wait_for

BRANCH = "trigger.input.branch"


def test_one_more_than_the_limit_waits_until_a_run_has_ended(lab: Lab) -> None:
    lab.start()
    workflow = limited(lab, 1)
    first, second = lab.begin(workflow), lab.begin(workflow)
    assert (first.admitted, first.concurrency_key) == (True, "")
    assert (second.admitted, second.status, second.locked_by) == (False, "queued", None)
    assert lab.gate.begun.wait(10)
    assert lab.trace(second) == []

    lab.gate.open.set()

    lab.until(first, "completed")
    lab.until(second, "completed")
    assert most_at_work(lab, workflow) == {"": 1}
    is_whole(lab)


def test_without_a_limit_a_run_is_in_no_group(lab: Lab) -> None:
    run = lab.queue(node("trigger"))
    assert (run.admitted, run.concurrency_key) == (True, None)


def test_those_who_wait_are_admitted_in_the_order_in_which_they_came(lab: Lab) -> None:
    workflow = limited(lab, 1)
    runs = [lab.begin(workflow) for _ in range(5)]
    lab.gate.open.set()
    lab.start()
    ended = [lab.until(run, "completed") for run in runs]
    starts = [run.started_at for run in ended]
    assert starts == sorted(starts, key=str)
    for earlier, later in itertools.pairwise(ended):
        assert earlier.completed_at is not None
        assert later.started_at is not None
        assert earlier.completed_at < later.started_at


def test_a_run_beyond_the_limit_is_rejected_with_the_ids_of_those_at_work(lab: Lab) -> None:
    workflow = limited(lab, 2, "reject")
    at_work = [lab.begin(workflow).id for _ in range(2)]
    with pytest.raises(Conflict) as refused:
        lab.begin(workflow)
    assert refused.value.code == "concurrency_limit"
    assert refused.value.details == {
        "maxConcurrentRuns": 2,
        "concurrencyKey": "",
        "runIds": at_work,
    }
    assert sql(lab, "SELECT count(*) FROM runs") == [(2,)]


def test_who_asks_to_wait_is_not_rejected(lab: Lab) -> None:
    workflow = limited(lab, 1, "reject")
    first, second = lab.begin(workflow), lab.begin(workflow, waits=True)
    assert not second.admitted
    lab.cancel(first)
    assert lab.get(second).admitted


def test_a_repeated_request_answers_its_run_where_a_new_one_would_be_rejected(lab: Lab) -> None:
    workflow = limited(lab, 1, "reject")
    first = lab.begin(workflow, idempotency_key="k")
    assert lab.begin(workflow, idempotency_key="k").id == first.id


def test_a_repeated_request_cancels_nobody(lab: Lab) -> None:
    workflow = limited(lab, 1, "cancel_oldest")
    first = lab.begin(workflow, idempotency_key="k")
    assert lab.begin(workflow, idempotency_key="k").id == first.id
    assert lab.get(first).status == "queued"


def test_the_oldest_is_cancelled_for_a_new_one(lab: Lab) -> None:
    workflow = limited(lab, 2, "cancel_oldest")
    first, second = lab.begin(workflow), lab.begin(workflow)
    third = lab.begin(workflow)
    assert third.admitted, "nobody was in flight in the oldest"
    assert [lab.get(run).status for run in (first, second, third)] == [
        "cancelled",
        "queued",
        "queued",
    ]
    ((by, key, payload),) = sql(
        lab,
        "SELECT actor_user_id, actor_key_id, payload FROM audit_events"
        " WHERE run_id = :id AND action = 'run.cancelled'",
        id=first.id,
    )
    assert (by, key) == (ACTOR.user_id, ACTOR.key_id)
    assert payload == {"reason": "concurrency_limit", "concurrencyKey": ""}


def test_the_new_one_begins_when_what_was_in_flight_in_the_oldest_has_ended(lab: Lab) -> None:
    lab.start()
    workflow = limited(lab, 1, "cancel_oldest")
    first = lab.begin(workflow)
    assert lab.gate.begun.wait(10)
    second, third = lab.begin(workflow), lab.begin(workflow)
    assert lab.get(first).status == "cancelled"
    assert lab.get(second).status == "cancelled", "it had waited, and is older than the third"
    assert (third.status, third.admitted) == ("queued", False)
    lab.gate.open.set()
    lab.until(third, "completed")
    assert lab.trace(second) == []
    assert most_at_work(lab, workflow) == {"": 1}
    is_whole(lab)


def test_each_key_is_a_group_of_its_own(lab: Lab) -> None:
    workflow = limited(lab, 1, key=BRANCH)
    main, again, other = (
        lab.begin(workflow, input={"branch": branch}) for branch in ("main", "main", "other")
    )
    assert [run.concurrency_key for run in (main, again, other)] == ["main", "main", "other"]
    assert [run.admitted for run in (main, again, other)] == [True, False, True]
    lab.cancel(other)
    assert not lab.get(again).admitted
    lab.cancel(main)
    assert lab.get(again).admitted


@pytest.mark.parametrize(
    ("value", "key"),
    [("5", "5"), (5, "5"), (5.0, "5"), (None, "null"), ([1, "a"], '[1,"a"]'), (True, "true")],
)
def test_a_key_is_a_text_whatever_the_expression_gives(lab: Lab, value: object, key: str) -> None:
    workflow = limited(lab, 1, key="{{ " + BRANCH + " }}")
    assert lab.begin(workflow, input={"branch": value}).concurrency_key == key


def test_a_key_can_tell_what_started_the_run(lab: Lab) -> None:
    workflow = limited(lab, 1, key="trigger.type ~ '/' ~ run.metronomeId ~ '/' ~ run.attempt")
    run = lab.begin(workflow, trigger_type="github")
    assert run.concurrency_key == f"github/{workflow}/1"


@pytest.mark.parametrize(
    "branch",
    [{}, {"branch": "x" * 501}, {"branch": "\U0001f600" * 126}],
    ids=["no such input", "too long", "too many bytes"],
)
def test_a_key_that_can_not_be_told_refuses_the_run(lab: Lab, branch: dict[str, str]) -> None:
    workflow = limited(lab, 1, key=BRANCH)
    with pytest.raises(Invalid) as refused:
        lab.begin(workflow, input=branch)
    assert refused.value.code == "concurrency_key"
    assert BRANCH in refused.value.message
    assert list(refused.value.details) == ["input"]
    assert sql(lab, "SELECT count(*) FROM runs") == [(0,)]


# -- who has a place


@pytest.fixture
def sleeping(lab: Lab) -> tuple[Run, Run]:
    """A run that sleeps, and one that waits for its place."""
    lab.start()
    sleeper = lab.workflow("sleeper", node("trigger"), node("delay", seconds=3600), node("end"))
    first = lab.begin(limit(lab, sleeper, 1))
    return waits(lab, first), lab.begin(sleeper)


def test_a_run_that_sleeps_keeps_its_place(lab: Lab, sleeping: tuple[Run, Run]) -> None:
    first, second = sleeping
    assert not lab.get(second).admitted
    assert stalled(lab) == ()
    lab.cancel(first)
    assert waits(lab, second).admitted


def test_a_paused_run_keeps_its_place(lab: Lab, sleeping: tuple[Run, Run]) -> None:
    first, second = sleeping
    transitions.pause(lab.db, ACTOR, first.metronome_id, first.id)
    assert not lab.get(second).admitted
    assert stalled(lab) == ()
    assert lab.resume(first).admitted
    assert not lab.get(second).admitted


def test_a_run_that_waits_and_is_paused_is_passed_over(lab: Lab) -> None:
    workflow = limited(lab, 1)
    first, second, third = (lab.begin(workflow) for _ in range(3))
    transitions.pause(lab.db, ACTOR, workflow, second.id)
    lab.cancel(first)
    assert not lab.get(second).admitted
    assert lab.get(third).admitted
    assert not lab.resume(second).admitted
    lab.cancel(third)
    assert lab.get(second).admitted


def test_a_run_that_is_resumed_takes_a_place_that_is_free(lab: Lab) -> None:
    workflow = limited(lab, 1)
    first, second = lab.begin(workflow), lab.begin(workflow)
    transitions.pause(lab.db, ACTOR, workflow, second.id)
    lab.cancel(first)
    assert places(lab, workflow) == {}
    assert lab.resume(second).admitted


def test_a_cancelled_run_keeps_its_place_while_a_node_of_it_is_in_flight(lab: Lab) -> None:
    lab.start()
    workflow = limited(lab, 1)
    first, second = lab.begin(workflow), lab.begin(workflow)
    assert lab.gate.begun.wait(10)
    lab.cancel(first)
    assert not lab.get(second).admitted
    assert stalled(lab) == ()
    lab.gate.open.set()
    lab.until(second, "completed")
    assert most_at_work(lab, workflow) == {"": 1}


def test_a_run_that_is_retried_waits_behind_those_who_came_before(lab: Lab) -> None:
    workflow = limited(lab, 1)
    first, second, third = (lab.begin(workflow) for _ in range(3))
    lab.cancel(first)
    assert not lab.retry(first).admitted
    lab.cancel(second)
    assert lab.get(third).admitted
    assert not lab.get(first).admitted
    lab.cancel(third)
    assert lab.get(first).admitted


def test_a_run_that_is_retried_begins_at_once_where_there_is_a_place(lab: Lab) -> None:
    workflow = limited(lab, 1)
    run = lab.begin(workflow)
    lab.cancel(run)
    assert lab.retry(run).admitted
    lab.gate.open.set()
    lab.start()
    lab.until(run, "completed")


def test_a_retry_while_a_node_is_in_flight_keeps_the_place(lab: Lab) -> None:
    lab.start()
    workflow = limited(lab, 1)
    first, second = lab.begin(workflow), lab.begin(workflow)
    assert lab.gate.begun.wait(10)
    lab.cancel(first)
    assert lab.retry(first).admitted
    assert not lab.get(second).admitted
    lab.gate.open.set()
    lab.until(first, "completed")
    lab.until(second, "completed")
    assert most_at_work(lab, workflow) == {"": 1}


def test_a_retry_counts_as_the_newest_where_the_oldest_is_cancelled(lab: Lab) -> None:
    workflow = limited(lab, 1, "cancel_oldest")
    first = lab.begin(workflow)
    second = lab.begin(workflow)
    assert lab.get(first).status == "cancelled"
    assert lab.retry(first).admitted
    assert lab.get(second).status == "cancelled"


def test_a_new_run_does_not_take_the_place_that_is_due_to_those_who_wait(lab: Lab) -> None:
    workflow = limited(lab, 1)
    first, second = lab.begin(workflow), lab.begin(workflow)
    ended = "UPDATE runs SET status = 'failed', completed_at = now(), due_at = NULL WHERE id = :id"
    sql(lab, ended, id=first.id)
    assert not lab.begin(workflow).admitted
    limit(lab, workflow, 1, "reject")
    with pytest.raises(Conflict):
        lab.begin(workflow)
    concurrency.settle(lab.db, stalled(lab))
    assert lab.get(second).admitted


# -- the limit changes


@pytest.mark.parametrize("most", [3, None])
def test_those_who_wait_are_admitted_up_to_the_new_limit(lab: Lab, most: int | None) -> None:
    workflow = limited(lab, 1)
    runs = [lab.begin(workflow) for _ in range(5)]
    limit(lab, workflow, most)
    concurrency.readmit(lab.db, workflow)
    assert [lab.get(run).admitted for run in runs] == [place < (most or 9) for place in range(5)]


def test_a_lower_limit_lets_those_at_work_go_on(lab: Lab) -> None:
    workflow = limited(lab, 3)
    runs = [lab.begin(workflow) for _ in range(4)]
    limit(lab, workflow, 1)
    concurrency.readmit(lab.db, workflow)
    assert [lab.get(run).admitted for run in runs] == [True, True, True, False]
    for place, run in enumerate(runs[:3]):
        assert lab.get(runs[3]).admitted is False, place
        lab.cancel(run)
    assert lab.get(runs[3]).admitted


def test_runs_from_before_the_limit_are_not_counted(lab: Lab) -> None:
    workflow = lab.workflow("later limited", *GATED)
    before = lab.begin(workflow)
    limit(lab, workflow, 1)
    assert before.concurrency_key is None
    assert lab.begin(workflow).admitted


def test_many_groups_of_a_workflow_are_settled_when_its_limit_goes(lab: Lab) -> None:
    workflow = limited(lab, 1, key=BRANCH)
    runs = [lab.begin(workflow, input={"branch": n}) for n in range(4) for _ in range(2)]
    limit(lab, workflow, None)
    concurrency.readmit(lab.db, workflow)
    assert all(lab.get(run).admitted for run in runs)


# -- the safety net


def test_a_sweep_finds_the_groups_in_which_somebody_could_have_a_place(lab: Lab) -> None:
    workflow = limited(lab, 1, key=BRANCH)
    for branch in ("a", "b", "c"):
        lab.begin(workflow, input={"branch": branch})
        lab.begin(workflow, input={"branch": branch})
    assert stalled(lab) == ()
    sql(
        lab,
        "UPDATE runs SET status = 'cancelled', completed_at = now(), due_at = NULL"
        " WHERE admitted AND concurrency_key IN ('a', 'c')",
    )
    assert stalled(lab) == ((workflow, "a"), (workflow, "c"))
    concurrency.settle(lab.db, stalled(lab))
    assert stalled(lab) == ()


def test_an_executor_gives_places_that_nobody_gave(lab: Lab) -> None:
    workflow = limited(lab, 1)
    first, second = lab.begin(workflow), lab.begin(workflow)
    sql(
        lab,
        "UPDATE runs SET status = 'cancelled', completed_at = now(), due_at = NULL WHERE id = :id",
        id=first.id,
    )
    lab.gate.open.set()
    lab.start()
    lab.until(admitted(lab, second), "completed")


def test_the_executors_cancel_the_oldest_where_whoever_came_could_not(lab: Lab) -> None:
    workflow = limited(lab, 1)
    first, second = lab.begin(workflow), lab.begin(workflow)
    limit(lab, workflow, 1, "cancel_oldest")
    lab.start()
    wait_for(lambda: lab.get(first).status == "cancelled")
    lab.gate.open.set()
    lab.until(second, "completed")
    actor = "SELECT actor_key_id FROM audit_events WHERE run_id = :id AND action = 'run.cancelled'"
    assert sql(lab, actor, id=first.id) == [("executor",)]
