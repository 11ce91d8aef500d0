"""Approve and reject a step that waits; at the store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from app.domain.lifecycle import (
    CANCEL,
    CLAIMABLE,
    COMPLETED,
    PAUSE,
    PAUSED,
    QUEUED,
    RESUME,
    RUN_STATUSES,
    RUNNING,
    TERMINAL,
    WAITING_APPROVAL,
)
from app.domain.models import Decided, Decision, Page
from app.store import decisions
from tests.store.world import ACTOR, APPROVED, ORGANIZATION, World

REJECTED = Decision(approved=False, comment="not \x1b yet, 'friend'")
SOON = "clock_timestamp() + interval '1 hour'"
BEFORE = "clock_timestamp() - interval '1 second'"


def waiting(world: World, status: str = WAITING_APPROVAL, **columns: str) -> str:
    """A run with a step that waits for an approval, in any status."""
    run_id = world.put(status, held=False, **columns)
    world.put_step(run_id, 1, COMPLETED)
    world.put_step(run_id, 2, WAITING_APPROVAL, node_id="'ask'")
    return run_id


def decided(world: World, run_id: str, decision: Decision = APPROVED) -> Decided:
    """Decide on a run that exists."""
    done = world.decide(run_id, decision)
    assert done is not None
    return done


def result(world: World, run_id: str, seq: int = 2) -> dict[str, Any] | None:
    """What was decided of a step."""
    (row,) = world.query("SELECT result FROM steps WHERE run_id = %s AND seq = %s", run_id, seq)
    return None if row["result"] is None else orjson.loads(row["result"])


@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
@pytest.mark.parametrize("approved", [True, False], ids=["approve", "reject"])
@pytest.mark.parametrize("status", RUN_STATUSES)
def test_a_decision_is_kept_wherever_the_run_has_not_ended(
    world: World, status: str, approved: bool, held: bool
) -> None:
    run_id = waiting(world, status, due_at=SOON if status in CLAIMABLE else "NULL")
    if held:
        world.execute(
            "UPDATE runs SET lease_token = 't', locked_by = 'e', locked_at = clock_timestamp(),"
            f" due_at = {SOON} WHERE id = %s",
            run_id,
        )
    before, everything = world.run(run_id), world.everything()

    done = decided(world, run_id, Decision(approved, comment="because"))

    if status in TERMINAL:
        assert done.outcome == "not_waiting"
        assert done.run.status == status
        assert world.everything() == everything
        return
    assert (done.outcome, done.seq, done.node_id) == ("decided", 2, "ask")
    after = world.run(run_id)
    assert after["signalled"]
    assert after["status"] == (QUEUED if status == WAITING_APPROVAL else status)
    assert done.run.status == after["status"]
    assert after["lease_token"] == before["lease_token"]
    wakes = status in (WAITING_APPROVAL, RUNNING) and not held
    assert (after["due_at"] == before["due_at"]) == (not wakes)
    kept = result(world, run_id) or {}
    assert kept.pop("decidedAt") == kept_at(world, run_id)
    word = "approved" if approved else "rejected"
    expected = {"decision": word, "comment": "because", "userId": "user_a", "keyId": "key_a"}
    assert kept == expected
    assert world.audits(run_id) == [f"run.{word}"]
    assert world.steps(run_id)[1]["status"] == WAITING_APPROVAL  # the executor ends it


def kept_at(world: World, run_id: str) -> str:
    """The time of the audit event, as the API writes times."""
    (row,) = world.query("SELECT created_at FROM audit_events WHERE run_id = %s", run_id)
    moment: datetime = row["created_at"]
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def test_who_decided_what_is_in_the_audit(world: World) -> None:
    run_id = waiting(world)
    by = replace(ACTOR, user_id="user_b", key_id="key_b")

    world.decide(run_id, REJECTED, actor=by)

    (event,) = world.query("SELECT * FROM audit_events")
    assert (event["actor_user_id"], event["actor_key_id"]) == ("user_b", "key_b")
    assert orjson.loads(event["payload"]) == {
        "stepId": f"step_{run_id[4:]}_000002",
        "nodeId": "ask",
        "comment": REJECTED.comment,
    }


def test_the_first_of_two_decisions_counts(world: World) -> None:
    run_id = waiting(world)
    with world.locked(run_id):
        first = world.begin(world.decide, run_id, Decision(approved=False))
        world.wait_for_waiters(1)
        second = world.begin(world.decide, run_id, Decision(approved=True))
        world.wait_for_waiters(2)
    outcomes = [one.result(20).outcome for one in (first, second)]  # type: ignore[union-attr]

    assert outcomes == ["decided", "already_decided"]
    assert (result(world, run_id) or {})["decision"] == "rejected"
    assert world.audits(run_id) == ["run.rejected"]


def test_twenty_decisions_at_once_are_one(world: World) -> None:
    run_id = waiting(world)
    with world.locked(run_id):
        all_of_them = [
            world.begin(world.decide, run_id, Decision(approved=bool(n % 2))) for n in range(20)
        ]
        world.wait_for_waiters(8)
    outcomes = [one.result(20).outcome for one in all_of_them]  # type: ignore[union-attr]
    assert sorted(outcomes) == ["already_decided"] * 19 + ["decided"]
    assert len(world.audits(run_id)) == 1


def test_which_step_is_meant_can_be_said(world: World) -> None:
    run_id = waiting(world)
    for seq in (3, 4, 5):
        world.put_step(run_id, seq, WAITING_APPROVAL, node_id="'more'")
    by_node, by_seq = (
        decided(world, run_id, Decision(approved=True, node_id="more")),
        decided(world, run_id, Decision(approved=True, seq=5)),
    )
    assert (by_node.seq, by_seq.seq) == (3, 5)
    assert [decided(world, run_id).seq for _ in range(2)] == [2, 4]
    assert decided(world, run_id).outcome == "already_decided"
    for wrong in (
        Decision(approved=True, node_id="other"),
        Decision(approved=True, seq=1),
        Decision(approved=True, seq=99),
        Decision(approved=True, seq=2, node_id="more"),
    ):
        assert decided(world, run_id, wrong).outcome == "not_waiting"
    assert len(world.audits(run_id)) == 4


def test_a_decision_behind_the_deadline_is_too_late(world: World) -> None:
    run_id = world.put(WAITING_APPROVAL)
    world.put_step(run_id, 1, WAITING_APPROVAL, wake_at=BEFORE)
    before = world.everything()
    assert decided(world, run_id).outcome == "expired"
    assert world.everything() == before
    world.put_step(run_id, 2, WAITING_APPROVAL, wake_at=SOON)
    assert (decided(world, run_id).seq, result(world, run_id, 1)) == (2, None)


def test_after_a_cancel_nothing_waits(world: World) -> None:
    run_id = waiting(world)
    world.done(CANCEL, run_id)
    done = decided(world, run_id)
    assert (done.outcome, done.run.status) == ("not_waiting", "cancelled")
    assert world.audits(run_id) == ["run.cancelled"]


def test_a_decision_in_a_pause_takes_effect_behind_it(world: World) -> None:
    run_id = waiting(world)
    world.done(PAUSE, run_id)
    assert decided(world, run_id).run.status == PAUSED
    world.done(RESUME, run_id)
    assert world.claim().id == run_id
    assert result(world, run_id) is not None


@pytest.mark.parametrize("status", RUN_STATUSES)
def test_foreign_runs_answer_as_unknown_ones_and_stay_as_they_are(
    world: World, status: str
) -> None:
    run_id = waiting(world, status)
    stranger = replace(ACTOR, organization_id="org_b")
    before = world.everything()
    assert world.decide("run_unknown") is None
    assert world.decide(run_id, actor=stranger) is None
    assert world.decide(run_id, metronome="met_b") is None
    assert world.everything() == before


def test_what_waits_is_listed_with_the_oldest_run_first(world: World) -> None:
    first, second = waiting(world), waiting(world)
    world.put_step(
        second, 3, WAITING_APPROVAL, wake_at=SOON, output="""'{"title": "T", "message": "M"}'"""
    )
    world.put_step(second, 4, WAITING_APPROVAL, wake_at=BEFORE)
    waiting(world, organization_id="'org_b'")
    decided(world, waiting(world))
    for status in TERMINAL:
        waiting(world, status)

    def page(organization: str, limit: int, offset: int) -> list[tuple[str, int]]:
        with world.db.connect() as connection:
            found = decisions.page(connection, organization, Page(limit, offset))
        return [(one.run_id, one.seq) for one in found]

    assert page(ORGANIZATION, 9, 0) == [(first, 2), (second, 2), (second, 3)]
    assert page(ORGANIZATION, 1, 1) == [(second, 2)]
    assert len(page("org_b", 9, 0)) == 1
    assert page("org_c", 9, 0) == []
    with world.db.connect() as connection:
        *_, last = decisions.page(connection, ORGANIZATION, Page(9))
    assert (last.title, last.message, last.run_status) == ("T", "M", WAITING_APPROVAL)
    assert last.deadline is not None
    assert last.deadline - last.requested_at > timedelta(minutes=59)


def test_whatever_a_run_is_about_its_approval_is_listed(world: World) -> None:
    runs = [(waiting(world, status), status) for status in RUN_STATUSES if status not in TERMINAL]
    with world.db.connect() as connection:
        found = decisions.page(connection, ORGANIZATION, Page(9))
    assert [(one.run_id, one.run_status) for one in found] == runs


def test_approvals_are_found_without_a_look_at_other_runs_and_steps(world: World) -> None:
    run_id = waiting(world, RUNNING)
    world.execute(
        "INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status, attempt,"
        " completed_at) SELECT %s, n, 'met_a', 'n', 'x', 'completed', 1, clock_timestamp()"
        " FROM generate_series(3, 5000) n",
        run_id,
    )
    world.execute("ANALYZE steps; ANALYZE runs")
    values = {"organization_id": ORGANIZATION, "limit": 20, "offset": 0}
    values |= {"after_run": "", "after_seq": 0}
    with world.db.connect() as connection:
        rows = connection.execute(text(f"EXPLAIN {decisions.PAGE}"), values)
        plan = "\n".join(row[0] for row in rows)
    assert "Index Scan using steps_waiting_approval on steps" in plan
