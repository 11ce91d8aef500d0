"""Limits on concurrent runs, where several want the same place at once: forced by locks."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.db import LOCK_TIMEOUT
from app.domain.errors import Conflict, MetronomeError
from app.domain.models import Run
from app.services import concurrency, transitions
from app.store import concurrency as store
from app.store.prepared import Message
from tests.engine.conftest import ACTOR, Lab, node
from tests.engine.limits import (
    limit,
    limited,
    most_at_work,
    places,
    stalled,
    workflow_locked,
)
from tests.engine.operators import is_whole, locked, sql, wait_for_lock_waiters
from tests.processes import wait_for


@pytest.fixture
def pool() -> Any:
    """Threads for what happens at once."""
    with ThreadPoolExecutor(16) as threads:
        yield threads


def attempt(lab: Lab, workflow: str, **wanted: Any) -> Run | str:
    """A new run, or the code of the refusal."""
    try:
        return lab.begin(workflow, **wanted)
    except Conflict as refusal:
        return refusal.code


def test_of_two_that_want_the_last_place_at_once_one_is_rejected(
    lab: Lab, pool: ThreadPoolExecutor
) -> None:
    workflow = limited(lab, 2, "reject")
    lab.begin(workflow)
    with workflow_locked(lab, workflow):
        both = [pool.submit(attempt, lab, workflow) for _ in range(2)]
        wait_for_lock_waiters(lab, 2)
    answers = [one.result(10) for one in both]
    assert sum(isinstance(one, Run) for one in answers) == 1
    assert "concurrency_limit" in answers
    assert places(lab, workflow) == {"": 2}


def test_of_two_that_want_the_last_place_at_once_one_waits(
    lab: Lab, pool: ThreadPoolExecutor
) -> None:
    workflow = limited(lab, 1)
    with workflow_locked(lab, workflow):
        both = [pool.submit(lab.begin, workflow) for _ in range(2)]
        wait_for_lock_waiters(lab, 2)
    assert sorted(one.result(10).admitted for one in both) == [False, True]


def test_of_many_at_once_the_newest_survives(lab: Lab, pool: ThreadPoolExecutor) -> None:
    workflow = limited(lab, 1, "cancel_oldest")
    with workflow_locked(lab, workflow):
        begun = [pool.submit(lab.begin, workflow) for _ in range(8)]
        wait_for_lock_waiters(lab, 8)
    for one in begun:
        one.result(30)
    assert places(lab, workflow) == {"": 1}
    left = sql(lab, "SELECT id, admitted FROM runs WHERE status = 'queued'")
    newest = sql(lab, "SELECT id, true FROM runs ORDER BY queued_at DESC LIMIT 1")
    assert left == newest


@pytest.mark.parametrize("ends_first", [True, False])
def test_a_place_that_becomes_free_while_a_run_is_created_is_not_lost(
    lab: Lab, pool: ThreadPoolExecutor, ends_first: bool
) -> None:
    """Both wait for the workflow's lock: who gives the place, and who looks for one."""
    lab.start()
    workflow = limited(lab, 1)
    first = lab.begin(workflow)
    assert lab.gate.begun.wait(10)
    with workflow_locked(lab, workflow):
        if not ends_first:
            creating = pool.submit(lab.begin, workflow)
            wait_for_lock_waiters(lab, 1)
        lab.gate.open.set()
        lab.until(first, "completed")
        wait_for_lock_waiters(lab, 1 if ends_first else 2)
        if ends_first:
            creating = pool.submit(lab.begin, workflow)
            wait_for_lock_waiters(lab, 2)
    lab.until(creating.result(10), "completed")
    assert most_at_work(lab, workflow) == {"": 1}


def test_a_place_is_not_given_to_a_run_that_is_just_being_cancelled(
    lab: Lab, pool: ThreadPoolExecutor
) -> None:
    workflow = limited(lab, 1)
    first, second, third = (lab.begin(workflow) for _ in range(3))
    with locked(lab, second):
        cancelling = pool.submit(lab.cancel, second)
        wait_for_lock_waiters(lab, 1)
        settling = pool.submit(lab.cancel, first)  # chooses the second one, and waits for its lock
        wait_for_lock_waiters(lab, 2)
    assert cancelling.result(10).moved
    assert settling.result(10).moved
    assert [lab.get(run).admitted for run in (second, third)] == [False, True]
    assert lab.get(third).status == "queued"


def test_a_place_goes_to_the_next_where_the_first_in_the_line_is_just_being_paused(
    lab: Lab, pool: ThreadPoolExecutor
) -> None:
    workflow = limited(lab, 1)
    first, second, third = (lab.begin(workflow) for _ in range(3))
    with locked(lab, second):
        pausing = pool.submit(transitions.pause, lab.db, ACTOR, workflow, second.id)
        wait_for_lock_waiters(lab, 1)
        settling = pool.submit(lab.cancel, first)
        wait_for_lock_waiters(lab, 2)
    assert pausing.result(10).moved
    assert settling.result(10).moved
    assert [lab.get(run).admitted for run in (second, third)] == [False, True]


def test_a_cancel_of_a_run_that_has_just_got_its_place_gives_it_on(
    lab: Lab, pool: ThreadPoolExecutor
) -> None:
    workflow = limited(lab, 1)
    first, second, third = (lab.begin(workflow) for _ in range(3))
    with locked(lab, second):
        settling = pool.submit(lab.cancel, first)
        wait_for_lock_waiters(lab, 1)
        cancelling = pool.submit(lab.cancel, second)
        wait_for_lock_waiters(lab, 2)
    assert settling.result(10).moved
    assert cancelling.result(10).moved
    assert lab.get(second).status == "cancelled"
    assert lab.get(third).admitted


def test_a_limit_that_is_lowered_while_a_run_is_created_holds_for_it(
    lab: Lab, pool: ThreadPoolExecutor
) -> None:
    workflow = limited(lab, 2)
    lab.begin(workflow)
    with workflow_locked(lab, workflow):
        lowering = pool.submit(limit, lab, workflow, 1)
        wait_for_lock_waiters(lab, 1)
        creating = pool.submit(lab.begin, workflow)
        wait_for_lock_waiters(lab, 2)
    lowering.result(10)
    assert not creating.result(10).admitted


def test_a_key_that_is_changed_while_a_run_is_created_is_the_new_one(
    lab: Lab, pool: ThreadPoolExecutor
) -> None:
    workflow = limited(lab, 2, key="'old'")
    with workflow_locked(lab, workflow):
        changing = pool.submit(limit, lab, workflow, 2, "queue", "'new'")
        wait_for_lock_waiters(lab, 1)
        creating = pool.submit(lab.begin, workflow)
        wait_for_lock_waiters(lab, 2)
    changing.result(10)
    assert creating.result(10).concurrency_key == "new"


def test_a_limit_that_goes_while_a_run_is_created_does_not_hold_for_it(
    lab: Lab, pool: ThreadPoolExecutor
) -> None:
    workflow = limited(lab, 1, "reject")
    lab.begin(workflow)
    with workflow_locked(lab, workflow):
        going = pool.submit(limit, lab, workflow, None)
        wait_for_lock_waiters(lab, 1)
        creating = pool.submit(lab.begin, workflow)
        wait_for_lock_waiters(lab, 2)
    going.result(10)
    assert creating.result(10).concurrency_key is None


def test_the_same_request_twice_at_once_is_one_run(lab: Lab, pool: ThreadPoolExecutor) -> None:
    workflow = limited(lab, 1, "reject")
    with workflow_locked(lab, workflow):
        both = [pool.submit(lab.begin, workflow, idempotency_key="k") for _ in range(2)]
        wait_for_lock_waiters(lab, 2)
    first, second = (one.result(10) for one in both)
    assert first.id == second.id


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("most", "on_limit"), [(1, "queue"), (2, "queue"), (3, "cancel_oldest")])
def test_in_a_storm_there_are_never_more_at_work_than_the_limit_says(
    lab: Lab, pool: ThreadPoolExecutor, most: int, on_limit: str
) -> None:
    lab.gate.open.set()
    for _ in range(2):
        lab.start(threads=6)
    nodes = (node("trigger"), node("delay", seconds=0.02), node("gate"), node("end"))
    workflow = limit(lab, lab.workflow("storm", *nodes), most, on_limit, "trigger.input.branch")
    above = lab.workflow(
        "above",
        node("trigger"),
        node("metronome", "call", workflowId=workflow, input={"branch": "a"}),
        node("end"),
    )
    over: list[dict[str, int]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            now = places(lab, workflow)
            if any(count > most for count in now.values()):
                over.append(now)

    def act(seed: int) -> None:
        dice = random.Random(seed)
        mine: list[Run] = []
        for _ in range(25):
            deed = dice.choice(["begin", "begin", "nest", "cancel", "pause", "resume", "retry"])
            try:
                if deed == "begin" or not mine:
                    mine.append(lab.begin(workflow, input={"branch": dice.choice("ab")}))
                    continue
                run = dice.choice(mine)
                if deed == "nest":
                    lab.begin(above)
                elif deed == "cancel":
                    lab.cancel(run)
                elif deed == "pause":
                    transitions.pause(lab.db, ACTOR, workflow, run.id)
                elif deed == "resume":
                    transitions.resume(lab.db, ACTOR, workflow, run.id, free=lab.free)
                else:
                    lab.retry(run)
            except MetronomeError:
                continue

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        for one in [pool.submit(act, seed) for seed in range(6)]:
            one.result(90)
        for metronome_id, run_id in sql(
            lab, "SELECT metronome_id, id FROM runs WHERE status = 'paused'"
        ):
            transitions.resume(lab.db, ACTOR, metronome_id, run_id, free=lab.free)
        wait_for(
            lambda: not sql(lab, "SELECT 1 FROM runs WHERE completed_at IS NULL"),
            60,
            lambda: str(sql(lab, "SELECT status, admitted, due_at FROM runs")),
        )
    finally:
        done.set()
        watching.join()
    assert over == []
    assert all(count <= most for count in most_at_work(lab, workflow).values())
    assert stalled(lab) == ()
    assert places(lab, workflow) == {}
    is_whole(lab)


def test_who_has_locked_one_workflow_keeps_no_other_waiting(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = Message(store.LOCK, store._SETTLE, settings=LOCK_TIMEOUT.replace("5s", "50ms"))
    assert soon._plain != store.SETTLE_MESSAGE._plain
    monkeypatch.setattr(store, "SETTLE_MESSAGE", soon)
    held, free = limited(lab, 1), limited(lab, 1)
    waiting = {}
    for workflow in (held, free):
        lab.begin(workflow)
        waiting[workflow] = lab.begin(workflow)
        limit(lab, workflow, 2)
    with workflow_locked(lab, held):
        concurrency.settle(lab.db, [(free, ""), (held, "")])
        assert lab.get(waiting[free]).admitted
        assert not lab.get(waiting[held]).admitted
    assert stalled(lab) == ((held, ""),)
    concurrency.settle(lab.db, stalled(lab))
    assert lab.get(waiting[held]).admitted
