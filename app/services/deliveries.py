"""Events on their way to the workflows that listen for them: what each delivery comes to.

A delivery is recorded once for each workflow that listens: as matched, with the run that it has
started; as ignored, with the reason; or as failed. Sent again with the same source id, it starts
nothing anew: what it came to is the answer, and only what failed, was ignored for a passing reason,
or had not been looked at when the first delivery was cut off, is tried again. Of two that come at
once one starts the run: both ask for it with the same idempotency key. One that meets a publish is
for the version that comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from app.db import Database
from app.domain.errors import Conflict, ExpressionError, Invalid, NotFound, ValueRefused
from app.domain.jsonvalue import clean_text, dumps
from app.domain.matching import mismatch
from app.domain.models import Actor, NewEvent, Run, TriggerEvent
from app.ids import new_id
from app.services import concurrency, starts
from app.services.concurrency import Free
from app.services.starts import RunRequest
from app.store import trigger_events, triggers
from app.store.trigger_events import FAILED, IGNORED, Unmatched
from app.store.triggers import Listener

MAX_PAYLOAD_BYTES: Final = 10_000_000  # as JSON; a request's own limit is lower as a rule
KEPT_BYTES: Final = 16_384  # of a payload that starts no run
MAX_REASON: Final = 1_000  # characters

TRIES: Final = 5  # that a workflow is looked at again, where it was published just then

# What keeps a run from being started, but no fault of the workflow or the event; and what of that
# may be over when the same event is delivered again.
NOT_PUBLISHED: Final = "not_published"
_PASSING_CODES = frozenset({"concurrency_limit", "metronome_archived", "metronome_paused"})
_IGNORED_CODES = _PASSING_CODES | {NOT_PUBLISHED, "trigger_not_found"}
REFUSALS = (Conflict, Invalid, NotFound, ExpressionError, ValueRefused)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event as it came; ``raw`` is the payload as text, for filters that search all of it."""

    trigger_type: str
    payload: dict[str, Any]
    raw: str
    source_event_id: str | None = None
    summary: str | None = None
    sample: bool = False  # somebody tries a trigger out

    def event(self) -> NewEvent:
        """The event that is recorded of it: a new one, with the whole payload."""
        document = dumps(self.payload, "payload", max_bytes=MAX_PAYLOAD_BYTES)
        return NewEvent(
            new_id("tev"),
            self.trigger_type,
            self.source_event_id,
            self.summary,
            document,
            self.sample,
        )

    @property
    def idempotency_key(self) -> str | None:
        """What makes sure that it starts one run of a workflow."""
        if self.source_event_id is None:
            return None
        return f"{self.trigger_type}:{self.source_event_id}"


def delivery(
    trigger_type: str,
    payload: dict[str, Any],
    *,
    source_event_id: str | None = None,
    summary: str | None = None,
    sample: bool = False,
) -> Delivery:
    """A delivery whose payload is a JSON object. Raises ValueRefused, which names the field."""
    raw = dumps(payload, "payload", max_bytes=MAX_PAYLOAD_BYTES)
    return Delivery(trigger_type, payload, raw, source_event_id, summary, sample)


def deliver(
    db: Database,
    actor: Actor,
    given: Delivery,
    *,
    tell: Callable[[], None],
    free: Free = concurrency.leave,
) -> list[TriggerEvent]:
    """Hand a delivery to all workflows of the organization that listen for its type.

    What it came to for each, in the order of the events' ids. ``actor`` is who delivers; the runs
    are for the workflows' owners. Runs that are limited may be refused: see the events' reasons.
    ``tell`` and ``free`` are as in ``starts.create``.
    """
    event = given.event()
    earlier, listening = db.read(lambda connection: _look(connection, actor, given))
    known = {one.metronome_id for one in earlier if not _is_open(one)}
    # What it came to when it was tried last, where it is not tried now.
    last = {one.metronome_id: one.id for one in earlier if one.metronome_id not in known}
    first = min((one.created_at for one in earlier), default=None)
    answered = [one.id for one in earlier if not _is_open(one)]
    unmatched: list[Unmatched] = []
    for metronome_id, nodes in _by_metronome(listening).items():
        # Who has come to listen since the delivery first came has missed it.
        late = first is not None and min(node.created_at for node in nodes) > first
        if metronome_id in known or late:
            continue
        last.pop(metronome_id, None)
        told = start_matching(db, actor, given, nodes, tell=tell, free=free)
        if isinstance(told, str):
            answered.append(told)
        else:
            unmatched.append(told)
    if not listening and not earlier:
        reason = f"no published metronome has a trigger of the type {given.trigger_type}"
        unmatched.append(_unmatched(event, IGNORED, reason, None))
    return record(db, actor, [*answered, *last.values()], unmatched)


def start_matching(
    db: Database,
    actor: Actor,
    given: Delivery,
    nodes: Sequence[Listener],
    *,
    tell: Callable[[], None],
    free: Free = concurrency.leave,
) -> str | Unmatched:
    """Start a run of the workflow of these trigger nodes if one of them matches; the event's id.

    Otherwise why not, which is to be recorded. Where another version was published since they were
    read, it is asked anew.
    """
    event, metronome_id = given.event(), nodes[0].metronome_id
    for _ in range(TRIES):
        told = _start(db, actor, given, event, nodes, tell, free)
        if told is not None:
            return told
        nodes = db.read(
            lambda connection: triggers.listeners(
                connection, actor.organization_id, given.trigger_type, metronome_id
            )
        )
        if not nodes:
            return ignored(event, "the metronome does not listen for it any more", metronome_id)
    reason = "the metronome was published again and again just then"
    return _unmatched(event, FAILED, reason, metronome_id)


def _start(
    db: Database,
    actor: Actor,
    given: Delivery,
    event: NewEvent,
    nodes: Sequence[Listener],
    tell: Callable[[], None],
    free: Free,
) -> str | Unmatched | None:
    """As ``start_matching``; None where these nodes are not what is published any more."""
    workflow = nodes[0]
    matching = []
    reasons = []
    for node in nodes:
        reason = mismatch(given.trigger_type, node.config, given.payload, given.raw)
        if reason is None:
            matching.append(node)
        else:
            reasons.append(reason)
    if workflow.paused or workflow.metronome_status != triggers.ACTIVE:
        reason = f"the metronome is {workflow.metronome_status}"
        return ignored(event, reason, workflow.metronome_id, passing=True)
    if not matching:
        return ignored(event, "; ".join(reasons), workflow.metronome_id)
    wanted = RunRequest(
        input=given.payload,
        input_field="payload",
        version_id=workflow.version_id,
        trigger_type=given.trigger_type,
        entry_nodes=tuple(node.node_id for node in matching),
        idempotency_key=given.idempotency_key,
        while_published=True,
        event=event,
    )
    try:
        run, new = starts.create(db, actor, workflow.metronome_id, wanted, tell=tell, free=free)
    except REFUSALS as error:
        if getattr(error, "code", "") == NOT_PUBLISHED:
            return None
        return refused(event, error, workflow.metronome_id)
    if new:
        return event.id
    # Somebody else was faster with the same delivery, or has used its key for something else.
    return run.trigger_event_id or ignored(event, taken(run), workflow.metronome_id)


def taken(run: Run) -> str:
    """Why an event starts no run, where another request has used its idempotency key."""
    return f"the run {run.id} has the idempotency key {run.idempotency_key}"


def refused(event: NewEvent, error: Exception, metronome_id: str) -> Unmatched:
    """The record of a delivery whose run could not be started."""
    code, message = getattr(error, "code", ""), getattr(error, "message", str(error))
    if code in _IGNORED_CODES:
        return ignored(event, message, metronome_id, passing=code in _PASSING_CODES)
    return _unmatched(event, FAILED, message, metronome_id)


def ignored(
    event: NewEvent, reason: str, metronome_id: str | None, *, passing: bool = False
) -> Unmatched:
    """The record of a delivery that starts nothing; ``passing``: not now."""
    return replace(_unmatched(event, IGNORED, reason, metronome_id), passing=passing)


def unusable(event: NewEvent, reason: str, metronome_id: str | None) -> Unmatched:
    """The record of a delivery whose payload can't be kept."""
    return _unmatched(event, FAILED, reason, metronome_id)


def record(
    db: Database, actor: Actor, answered: Sequence[str], unmatched: Sequence[Unmatched]
) -> list[TriggerEvent]:
    """Write down what has started nothing, which is of one delivery.

    The events, and those with the ids ``answered``. What was ignored is written down once.
    """
    organization = actor.organization_id

    def write(connection: Connection) -> list[TriggerEvent]:
        written = trigger_events.insert(connection, organization, unmatched)
        ids = [*answered, *(one.event.id for one in unmatched)]
        if len(written) < len(unmatched):
            ids += trigger_events.ignored_before(connection, organization, unmatched)
        return trigger_events.with_ids(connection, organization, ids)

    # Written once more where the connection was lost meanwhile: the ids make it once.
    return db.read(write)


def _is_open(earlier: TriggerEvent) -> bool:
    """Whether what a delivery came to is tried again when it comes again."""
    return earlier.status == FAILED or earlier.passing


def _unmatched(event: NewEvent, status: Any, reason: str, metronome_id: str | None) -> Unmatched:
    kept = event
    size = len(event.payload.encode())
    if size > KEPT_BYTES:
        omitted = orjson.dumps({"omittedBytes": size}).decode()
        kept = replace(event, payload=omitted)
    return Unmatched(kept, status, clean_text(reason, MAX_REASON), metronome_id)


def _look(
    connection: Connection, actor: Actor, given: Delivery
) -> tuple[list[TriggerEvent], list[Listener]]:
    organization, kind = actor.organization_id, given.trigger_type
    earlier: list[TriggerEvent] = []
    if given.source_event_id is not None:
        earlier = trigger_events.of_source(connection, organization, kind, given.source_event_id)
    return earlier, triggers.listeners(connection, organization, kind)


def _by_metronome(listening: Sequence[Listener]) -> Mapping[str, list[Listener]]:
    found: dict[str, list[Listener]] = {}
    for one in listening:
        found.setdefault(one.metronome_id, []).append(one)
    return found
