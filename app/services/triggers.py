"""Triggers of one workflow: calling a function trigger, trying a trigger out, and what has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from app.db import Database
from app.domain.errors import Conflict, MetronomeError, NotFound
from app.domain.matching import mismatch
from app.domain.models import Actor, Metronome, NewEvent, Page, Run, TriggerEvent
from app.domain.trigger_rows import FUNCTION, MANUAL, MANUAL_TEST, triggers_of, type_of
from app.services import concurrency, definitions, deliveries, starts
from app.services import metronomes as metronome_service
from app.services.concurrency import Free
from app.services.deliveries import MAX_REASON, Delivery
from app.services.starts import RunRequest
from app.store import metronomes, trigger_events, trigger_summaries, triggers
from app.store.trigger_events import EventFilter
from app.store.trigger_summaries import Summary
from app.store.triggers import Called


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a delivery for one workflow came to; ``new`` says that it has started its run now.

    ``mismatch`` is why a sample would have been ignored, had it been a delivery.
    """

    event: TriggerEvent | None  # None where the run has come from something else
    run: Run
    new: bool
    mismatch: str | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """How a trigger is tried out: ``run`` is what is asked of the run, but for its input."""

    given: Delivery
    run: RunRequest


def call(
    db: Database,
    actor: Actor,
    metronome_id: str,
    slug: str,
    given: Delivery,
    *,
    idempotency_key: str | None,
    tell: Callable[[], None],
    free: Free = concurrency.leave,
) -> Outcome:
    """Call the function trigger ``slug`` of what the workflow has published.

    An event with a source id starts one run of that trigger, whatever ``idempotency_key`` it comes
    with; and so does the key. ``tell`` and ``free`` are as in ``starts.create``. Raises NotFound
    (no such workflow, or no such slug), Conflict where it is not published, paused or at its limit,
    and what ``starts.create`` raises; all but an unknown workflow is recorded.
    """
    event = given.event()
    source = given.source_event_id
    own_key = None if source is None else f"{FUNCTION}:{slug}:{source}"
    refusal: MetronomeError
    for _ in range(deliveries.TRIES):
        called = db.read(
            lambda connection: triggers.called(
                connection, actor.organization_id, metronome_id, slug
            )
        )
        if called is None:
            raise metronome_service.not_found()
        if called.listener is None or called.listener.paused:
            refusal = _refusal(called, slug)
            break
        wanted = RunRequest(
            input=given.payload,
            input_field="payload",
            version_id=called.listener.version_id,
            trigger_type=FUNCTION,
            entry_nodes=(called.listener.node_id,),
            idempotency_key=idempotency_key or own_key,
            event_key=own_key,
            while_published=True,
            event=event,
        )
        try:
            return _start(db, actor, metronome_id, wanted, tell, free)
        except Conflict as error:
            if error.code != deliveries.NOT_PUBLISHED:
                raise
            refusal = error  # was another version published since? It may have this trigger, too.
    deliveries.record(db, actor, [], [deliveries.refused(event, refusal, metronome_id)])
    raise refusal


def _refusal(called: Called, slug: str) -> MetronomeError:
    """Why a trigger can't be called that is not there, or does not listen."""
    if called.metronome_status == metronomes.ARCHIVED:
        return Conflict("the metronome is archived", code="metronome_archived")
    if not called.is_published:
        message = "the metronome has no published version: publish it first"
        return Conflict(message, code=deliveries.NOT_PUBLISHED)
    if called.listener is None:
        message = f"the published version has no function trigger with the slug {slug}"
        return NotFound(message, code="trigger_not_found")
    message = f"the metronome is {called.metronome_status}; set its status to active"
    return Conflict(message, code="metronome_paused")


def test(
    db: Database,
    actor: Actor,
    metronome_id: str,
    trial: Trial,
    *,
    tell: Callable[[], None],
    free: Free,
) -> Outcome:
    """Deliver a sample to the workflow's draft, or to the definition that came along.

    It starts a run in any case. Where that definition has triggers of the sample's type, the run
    begins at those that match; where none does, at all of them, and the outcome tells why a
    delivery would have been ignored; so it does where there is none of the type. Raises NotFound,
    Invalid (the definition), and what ``starts.create`` raises, which is recorded as failed.
    """
    metronome = _metronome(db, actor, metronome_id)
    definition = metronome.definition
    if trial.run.definition is not None:
        definition = trial.run.definition
        definitions.checked(definition)
    given = trial.given
    event = given.event()
    matching, reasons = _matching(definition, given)
    wanted = _with_event(trial.run, given, event, matching)
    outcome = _start(db, actor, metronome_id, wanted, tell, free)
    return replace(outcome, mismatch="; ".join(reasons)[:MAX_REASON] or None)


def _with_event(
    wanted: RunRequest, given: Delivery, event: NewEvent, matching: tuple[str, ...]
) -> RunRequest:
    key = wanted.idempotency_key
    if key is None and given.idempotency_key is not None:
        # A trial is not the event itself, which may still come, with the same id.
        key = f"test:{given.idempotency_key}"
    return RunRequest(
        input=given.payload,
        input_field="payload",
        definition=wanted.definition,
        use="draft",
        trigger_type=given.trigger_type,
        entry_nodes=matching,
        idempotency_key=key,
        max_attempts=wanted.max_attempts,
        timeout_ms=wanted.timeout_ms,
        attached_project_id=wanted.attached_project_id,
        attached_ticket_id=wanted.attached_ticket_id,
        event=event,
    )


def _matching(definition: dict[str, Any], given: Delivery) -> tuple[tuple[str, ...], list[str]]:
    """The triggers of the sample's type that match; where none does, why."""
    if given.trigger_type == MANUAL:
        return (), []
    matching, reasons = [], []
    for node in triggers_of(definition):
        if type_of(node) != given.trigger_type:
            continue
        reason = mismatch(given.trigger_type, node.config, given.payload, given.raw)
        if reason is None:
            matching.append(node.id)
        else:
            reasons.append(reason)
    if not matching and not reasons and given.trigger_type != MANUAL_TEST:
        reasons.append(f"there is no trigger of the type {given.trigger_type}")
    return tuple(matching), [] if matching else reasons


def _start(
    db: Database,
    actor: Actor,
    metronome_id: str,
    wanted: RunRequest,
    tell: Callable[[], None],
    free: Free,
) -> Outcome:
    """Start the run of a delivery. What is raised is recorded, unless another try may help."""
    event = wanted.event
    if event is None:
        raise AssertionError("a delivery without an event")
    try:
        run, new = starts.create(db, actor, metronome_id, wanted, tell=tell, free=free)
        if not new:
            starts.check_same_type(run, wanted.trigger_type)
    except deliveries.REFUSALS as error:
        if getattr(error, "code", "") != deliveries.NOT_PUBLISHED:
            deliveries.record(db, actor, [], [deliveries.refused(event, error, metronome_id)])
        raise
    recorded = deliveries.record(db, actor, [run.trigger_event_id or event.id], [])
    return Outcome(recorded[0] if recorded else None, run, new)


def _metronome(db: Database, actor: Actor, metronome_id: str) -> Metronome:
    found = db.read(
        lambda connection: metronomes.get(connection, actor.organization_id, metronome_id)
    )
    if found is None:
        raise metronome_service.not_found()
    return found


def page(db: Database, actor: Actor, wanted: EventFilter, page: Page) -> list[TriggerEvent]:
    """Trigger events, newest first: of one workflow, or of the organization. Raises NotFound."""

    def query(connection: Connection) -> list[TriggerEvent] | None:
        organization, metronome_id = actor.organization_id, wanted.metronome_id
        found = trigger_events.page(connection, organization, wanted, page)
        if found or metronome_id is None or metronomes.get(connection, organization, metronome_id):
            return found
        return None

    found = db.read(query)
    if found is None:
        raise metronome_service.not_found()
    return found


def summaries(db: Database, actor: Actor, metronome_id: str, page: Page) -> list[Summary]:
    """What has come for a workflow by type, the latest first. Raises NotFound."""
    found = db.read(
        lambda connection: trigger_summaries.page(
            connection, actor.organization_id, metronome_id, page
        )
    )
    if found is None:
        raise metronome_service.not_found()
    return found
