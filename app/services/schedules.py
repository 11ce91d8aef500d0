"""Schedules: starting the runs whose time has come.

Each due time gets one run, whatever happens: the run's idempotency key names it. Only when there is
a run does the trigger go on to its next due time. Who dies in between leaves a due time that the
next one finds, and a key that keeps it from starting a second run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.clock import iso
from app.db import Database
from app.domain.errors import Conflict, MetronomeError
from app.domain.jsonvalue import dumps
from app.domain.models import Actor, NewEvent, Page
from app.domain.schedule import TRIGGER_TYPE, Schedule, parse, settle
from app.ids import new_id
from app.services import concurrency, deliveries, starts
from app.services.concurrency import Free
from app.services.starts import RunRequest
from app.store import schedules, trigger_events
from app.store.schedules import Due, Listed
from app.store.trigger_events import FAILED, IGNORED, Unmatched

log = logging.getLogger(__name__)

UPCOMING = 5  # due times that are told of a schedule

SCHEDULER = "scheduler"  # who acts, in the audit, where no key does
_MAX_EVENT_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule, what its config means, and when it is due next, at most UPCOMING times."""

    listed: Listed
    plan: Schedule | None  # None where the config can't be read any more
    upcoming: tuple[datetime, ...]


def page(db: Database, actor: Actor, metronome_id: str | None, part: Page) -> list[ScheduleView]:
    """The schedules of what is published in an organization, or of one workflow, newest first."""
    found = db.read(
        lambda connection: schedules.page(connection, actor.organization_id, metronome_id, part)
    )
    return [_view(one) for one in found]


def _view(listed: Listed) -> ScheduleView:
    try:
        plan = parse(listed.config)
    except ValueError:
        return ScheduleView(listed, None, ())
    due = listed.next_due_at
    upcoming: list[datetime] = []
    while due is not None and len(upcoming) < UPCOMING:
        upcoming.append(due)
        due = plan.next_due(due)
    return ScheduleView(listed, plan, tuple(upcoming))


class Stopped(Exception):
    """The workflow was paused or published anew since its schedule was read."""


def upcoming(db: Database, *, limit: int) -> list[Due]:
    """Up to ``limit`` schedules that are due, or without any those that are due next."""
    return db.read(lambda connection: schedules.upcoming(connection, limit=limit))


def fire(
    db: Database, due: Due, *, tell: Callable[[], None], free: Free = concurrency.leave
) -> bool:
    """Deal with a due time: start a run for it, or record why there is none, and go on.

    False where the workflow was paused or published anew since it was read: nothing was done. For
    one that is paused just now, no run begins after that has been answered. ``tell`` is called once
    there is a run that can begin; ``free`` is as in ``starts.create``. Database errors pass
    through, and so does a Conflict that another try may not meet; nothing is lost by either.
    """
    try:
        plan = parse(due.config)
    except ValueError as error:
        give_up(db, due, f"the schedule can't be read: {error}")
        return True
    settled = settle(plan, due.due_at, due.now)
    unmatched = []
    if settled.passed_over:
        unmatched.append(_missed(due, plan, settled.start))
    if settled.start is not None:
        try:
            refused = _start(db, due, plan, settled.start, tell, free)
        except Stopped:
            return False
        if refused is not None:
            unmatched.append(refused)
    _go_on(db, due, settled.next, unmatched)
    return True


def give_up(db: Database, due: Due, reason: str) -> None:
    """Start no run for a due time that can't be dealt with, and say why."""
    try:
        plan = parse(due.config)
    except ValueError:
        upcoming, payload = None, {"scheduledTime": iso(due.due_at)}
    else:
        upcoming, payload = plan.next_due(due.due_at), _payload(due, plan, due.due_at)
    _go_on(db, due, upcoming, [_unmatched(due, due.due_at, payload, FAILED, reason)])


def _start(
    db: Database,
    due: Due,
    plan: Schedule,
    moment: datetime,
    tell: Callable[[], None],
    free: Free,
) -> Unmatched | None:
    """Start the run of a due time; why that was refused, or None. Raises Stopped."""
    payload = _payload(due, plan, moment)
    wanted = RunRequest(
        input=payload,
        version_id=due.version_id,
        trigger_type=TRIGGER_TYPE,
        entry_nodes=(due.node_id,),
        idempotency_key=_key(due, moment),
        while_published=True,
        event=_event(due, moment, payload),
    )
    actor = Actor(SCHEDULER, due.user_id, due.organization_id)
    try:
        run, created = starts.create(db, actor, due.metronome_id, wanted, tell=tell, free=free)
    except Conflict as error:
        if error.code == Conflict.code:  # somebody was faster, again and again
            raise
        if error.code == "not_published":
            raise Stopped from error
        return _unmatched(due, moment, payload, IGNORED, error.message)
    except MetronomeError as error:
        return _unmatched(due, moment, payload, FAILED, error.message)
    if created:
        log.info("schedule started a run", extra={"runId": run.id, "due": iso(moment)})
    elif run.trigger_event_id is None:  # no other executor was faster: somebody took the key
        return _unmatched(due, moment, payload, IGNORED, deliveries.taken(run))
    return None


def _missed(due: Due, plan: Schedule, start: datetime | None) -> Unmatched:
    seconds = round(plan.catch_up.total_seconds())
    reason = f"missed: due times from {iso(due.due_at)} on were more than {seconds} s late"
    if start is not None:
        reason += f"; only the latest of them, {iso(start)}, gets a run"
    return _unmatched(due, due.due_at, _payload(due, plan, due.due_at), IGNORED, reason)


def _go_on(
    db: Database, due: Due, next_due_at: datetime | None, unmatched: list[Unmatched]
) -> None:
    """Wait for the next due time; what is to be told of this one is told once, by who is first."""
    if not unmatched:
        with db.connect() as connection:
            schedules.move_on(connection, due, next_due_at)
        return
    with db.transaction() as transaction:
        if schedules.move_on(transaction, due, next_due_at):
            trigger_events.insert(transaction, due.organization_id, unmatched)


def _key(due: Due, moment: datetime) -> str:
    return f"{TRIGGER_TYPE}:{due.node_id}:{iso(moment)}"


def _payload(due: Due, plan: Schedule, moment: datetime) -> dict[str, Any]:
    """The run's input."""
    payload: dict[str, Any] = {
        "scheduledTime": iso(moment),
        "firedAt": iso(due.now),
        "scheduleType": plan.kind,
        "scheduleTimezone": plan.zone.key,
        "triggerNodeId": due.node_id,
    }
    if plan.expression is not None:
        payload["cronExpression"] = plan.expression
    if plan.seconds is not None:
        payload["intervalSeconds"] = plan.seconds
    return payload


def _event(due: Due, moment: datetime, payload: dict[str, Any]) -> NewEvent:
    return NewEvent(
        id=new_id("tev"),
        trigger_type=TRIGGER_TYPE,
        source_event_id=_key(due, moment),
        summary=f"due at {iso(moment)}",
        payload=dumps(payload, "payload", max_bytes=_MAX_EVENT_BYTES),
    )


def _unmatched(
    due: Due, moment: datetime, payload: dict[str, Any], status: Any, reason: str
) -> Unmatched:
    return Unmatched(_event(due, moment, payload), status, reason, due.metronome_id)
