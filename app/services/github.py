"""GitHub's webhooks: deliveries that are signed, for all workflows that listen for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from app.db import Database
from app.domain.errors import Unauthorized
from app.domain.matching import ADDED
from app.domain.models import Actor, NewEvent, TriggerEvent
from app.ids import new_id
from app.services import concurrency, deliveries, webhooks
from app.services.concurrency import Free
from app.services.deliveries import Delivery
from app.services.webhooks import Proof
from app.store import trigger_events, triggers
from app.store import webhooks as webhook_store
from app.store.trigger_events import UNAUTHORIZED, Unmatched
from app.store.webhooks import Secret

TRIGGER_TYPE: Final = "github"
PING: Final = "ping"  # with which GitHub tries a new webhook out
_MOST_TOLD = 25  # workflows for which a delivery is recorded that was refused
_MOST_SUMMARY = 1_000  # characters


@dataclass(frozen=True, slots=True)
class Headers:
    """What GitHub tells of a delivery: the name of the event, and the delivery's id."""

    event: str
    delivery: str | None


def admit(db: Database, body: bytes, proof: Proof, source_event_id: str | None) -> Actor:
    """Who delivers: the webhook, for its organization.

    Raises Unauthorized. Where the delivery names its webhook that is recorded, for the workflows
    that listen, but not more than so many a minute.
    """
    try:
        found: Secret = webhooks.authenticate(db, body, proof)
    except Unauthorized as error:
        if proof.webhook_id is not None:
            _record_refusal(db, proof.webhook_id, source_event_id, error.message)
        raise
    return Actor(found.webhook_id, found.webhook_id, found.organization_id)


def deliver(
    db: Database,
    actor: Actor,
    headers: Headers,
    payload: dict[str, Any],
    raw: str,
    *,
    tell: Callable[[], None],
    free: Free = concurrency.leave,
) -> list[TriggerEvent]:
    """Hand an event to the workflows that listen; ``raw`` is the payload's text as it came.

    What runs get as input is the payload, with ``githubEvent`` and ``githubDelivery``: those stand
    in headers. Raises ValueRefused.
    """
    event_field, delivery_field = ADDED
    told = {**payload, event_field: headers.event}
    if headers.delivery is not None:
        told[delivery_field] = headers.delivery
    given = Delivery(TRIGGER_TYPE, told, raw, headers.delivery, _summary(headers.event, payload))
    if headers.event != PING:
        return deliveries.deliver(db, actor, given, tell=tell, free=free)
    reason = "GitHub tries the webhook out"
    return deliveries.record(db, actor, [], [deliveries.ignored(given.event(), reason, None)])


def record_unusable(db: Database, actor: Actor, headers: Headers, reason: str) -> None:
    """Record a delivery whose payload can't be kept, for the workflows that listen."""

    def record(connection: Connection) -> None:
        organization = actor.organization_id
        given = [
            deliveries.unusable(
                NewEvent(new_id("tev"), TRIGGER_TYPE, headers.delivery, headers.event, "{}"),
                reason,
                metronome_id,
            )
            for metronome_id in _told(connection, organization)
        ]
        trigger_events.insert(connection, organization, given)

    db.read(record)


def _summary(event: str, payload: dict[str, Any]) -> str:
    """One line of it for people, such as ``pull_request opened in acme/site``."""
    words = [event]
    if isinstance(payload.get("action"), str):
        words.append(payload["action"])
    repository = payload.get("repository")
    if isinstance(repository, dict) and isinstance(repository.get("full_name"), str):
        words.append(f"in {repository['full_name']}")
    return " ".join(words)[:_MOST_SUMMARY]


def _record_refusal(
    db: Database, webhook_id: str, source_event_id: str | None, reason: str
) -> None:
    def record(connection: Connection) -> None:
        organization = webhook_store.count_refusal(connection, webhook_id)
        if organization is None:
            return
        # Its payload is anybody's, and so is its id: no replay of it is looked for.
        summary = f"webhook {webhook_id}" + (
            f", delivery {source_event_id}" * bool(source_event_id)
        )
        refused = [
            Unmatched(
                NewEvent(new_id("tev"), TRIGGER_TYPE, None, summary, "{}"),
                UNAUTHORIZED,
                reason,
                metronome_id,
            )
            for metronome_id in _told(connection, organization)
        ]
        trigger_events.insert(connection, organization, refused)

    with db.connect() as connection:
        record(connection)


def _told(connection: Connection, organization_id: str) -> list[str | None]:
    """The workflows for which a delivery is recorded that none of them sees; at least None."""
    listening = triggers.listeners(connection, organization_id, TRIGGER_TYPE)
    told: list[str | None] = list(dict.fromkeys(one.metronome_id for one in listening))
    return told[:_MOST_TOLD] or [None]
