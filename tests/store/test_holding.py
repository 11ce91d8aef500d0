"""What a pause holds of a tree, and what a confirmation is one for."""

from __future__ import annotations

import pytest

from app.domain.lifecycle import COMPLETED, PAUSE, PAUSED, QUEUED, RESUME, RUNNING, WAITING_APPROVAL
from tests.store.test_trees import doubtful, resume, statuses
from tests.store.world import World


def test_a_pause_of_a_run_that_one_above_paused_holds_it_when_that_is_resumed(
    world: World,
) -> None:
    root = world.put(RUNNING)
    child = world.put(RUNNING, parent=root)
    grandchild = world.put(WAITING_APPROVAL, parent=child)
    own = world.put(PAUSED, parent=child)
    beside = world.put(RUNNING, parent=root)
    world.done(PAUSE, root)
    before = world.everything()

    done = world.done(PAUSE, child)

    assert (done.moved, done.run.status) == (False, PAUSED)
    after = world.everything()
    changed = {row["id"] for row in after["runs"] if row not in before["runs"]}
    assert changed == {child, grandchild}
    for row in after["runs"]:
        row.pop("paused_by")
    for row in before["runs"]:
        row.pop("paused_by")
    assert after["runs"] == before["runs"]
    assert (after["steps"], after["outbox"]) == (before["steps"], before["outbox"])
    assert [world.run(one)["paused_by"] for one in (child, grandchild, own, beside)] == [
        child,
        child,
        own,
        root,
    ]

    assert world.done(RESUME, root).moved
    assert statuses(world, root, child, grandchild, own, beside) == [
        QUEUED,
        *[PAUSED] * 3,
        QUEUED,
    ]
    assert world.done(RESUME, child).moved
    assert statuses(world, child, grandchild, own) == [QUEUED, QUEUED, PAUSED]


def test_that_pause_is_audited_once(world: World) -> None:
    root = world.put(RUNNING)
    child = world.put(RUNNING, parent=root)
    grandchild = world.put(RUNNING, parent=child)
    world.done(PAUSE, root)

    (before,) = world.query("SELECT clock_timestamp() AS now")
    for _ in range(2):
        world.done(PAUSE, child)

    events = world.query(
        "SELECT payload::text, created_at FROM audit_events WHERE run_id = %s ORDER BY id", child
    )
    assert [event["payload"] for event in events][1:] == ['{"held" : true}']
    assert events[0]["created_at"] < before["now"] < events[1]["created_at"]
    assert world.audits(child) == ["run.paused"] * 2
    assert (world.audits(root), world.audits(grandchild)) == (["run.paused"], ["run.paused"])


def test_a_run_in_doubt_below_a_paused_one_goes_on_with_its_confirmation(world: World) -> None:
    root = world.put(RUNNING)
    nested = doubtful(world, parent=root)
    child = world.put(RUNNING, parent=nested)
    world.done(PAUSE, root)
    before = world.everything()
    assert not world.done(PAUSE, nested).moved
    assert world.everything() == before
    resume(world, root, confirm=True)
    assert statuses(world, root, nested, child) == [QUEUED] * 3


@pytest.mark.parametrize("confirm", [False, True])
def test_a_confirmation_is_one_for_what_was_lost_until_now(world: World, confirm: bool) -> None:
    root = world.put(RUNNING)
    nested = doubtful(world, parent=root)
    sure = world.put(RUNNING, parent=root)
    world.put_step(sure, 1, COMPLETED)
    world.put_step(root, 1, RUNNING)
    world.done(PAUSE, root)

    resume(world, root, confirm=confirm)

    confirmed = [world.run(one)["confirmed_seq"] for one in (root, nested, sure)]
    assert confirmed == [0, 4 if confirm else 0, 0]


def test_a_confirmation_takes_nothing_back(world: World) -> None:
    run_id = world.put(PAUSED, in_doubt="true", confirmed_seq="7")
    resume(world, run_id, confirm=True)
    assert world.run(run_id)["confirmed_seq"] == 7
