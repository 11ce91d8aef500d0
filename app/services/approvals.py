"""Approvals: what waits for a person of an organization, and the decisions."""

from __future__ import annotations

from app.db import Database
from app.domain.errors import Conflict
from app.domain.models import Actor, Approval, Decided, Decision, Page, Run
from app.ids import step_id as make_step_id
from app.ids import step_of
from app.services.runs import not_found
from app.store import decisions

_NONE = 0  # no step has this seq


def decide(
    db: Database,
    actor: Actor,
    metronome_id: str,
    run_id: str,
    *,
    approved: bool,
    comment: str | None = None,
    node_id: str | None = None,
    step_id: str | None = None,
) -> Run:
    """Approve or reject a step that waits; the run as it is now.

    Without ``node_id`` and ``step_id`` it is the one that has waited longest. Raises NotFound, or
    Conflict: no such step waits (not_waiting), somebody was faster (already_decided), or its
    deadline has passed (approval_expired).
    """
    seq = None if step_id is None else _seq(run_id, step_id)
    decision = Decision(approved, comment, seq, node_id)
    with db.connect() as connection:
        done = decisions.decide(connection, actor, metronome_id, run_id, decision)
    if done is None:
        raise not_found()
    if done.outcome == "decided":
        return done.run
    raise _refusal(done, named=node_id is not None or step_id is not None)


def _seq(run_id: str, step_id: str) -> int:
    found = step_of(step_id)
    return found[1] if found and found[0] == run_id else _NONE


def _refusal(done: Decided, *, named: bool) -> Conflict:
    details: dict[str, object] = {"status": done.run.status}
    if done.seq is not None:
        details |= {"stepId": make_step_id(done.run.id, done.seq), "nodeId": done.node_id}
    if done.outcome == "already_decided":
        message = "somebody has decided this before; the run goes on with that"
        return Conflict(message, code="already_decided", details=details)
    if done.outcome == "expired":
        message = "the deadline of this approval has passed"
        return Conflict(message, code="approval_expired", details=details)
    step = "this step of it does not wait" if named else "no step of it waits"
    message = f"the run is {done.run.status}, and {step} for an approval"
    return Conflict(message, code="not_waiting", details=details)


def page(db: Database, actor: Actor, part: Page) -> list[Approval]:
    """A page of the steps that wait for a decision, those of the oldest run first."""
    return db.read(lambda connection: decisions.page(connection, actor.organization_id, part))
