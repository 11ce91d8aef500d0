"""Whether a definition can be saved, or published: every fault, none as an exception."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from app.db import Database
from app.domain import schedule
from app.domain.connectors import Connector
from app.domain.errors import Invalid
from app.domain.issues import Issue
from app.domain.models import Actor
from app.domain.publishable import Sound, in_order, publish_faults, read
from app.domain.shape import check_shape
from app.domain.trigger_rows import PERIODIC, type_of
from app.nodes import REGISTRY
from app.nodes.base import NodeLimits
from app.services import definitions, naming
from app.services import metronomes as metronome_service
from app.store import metronomes, triggers, versions

Mode = Literal["shape", "publish"]
MODES: tuple[Mode, ...] = ("shape", "publish")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be looked at: the definition, else that of the version, else the draft."""

    definition: dict[str, Any] | None = None
    version_id: str | None = None


def check_publishable(
    connection: Connection,
    actor: Actor,
    metronome_id: str | None,
    definition: object,
    connectors: Mapping[str, Connector],
) -> list[Issue]:
    """Every fault of ``definition``, errors first, at most 100; without an error among them it can
    be published.

    ``metronome_id`` is the workflow whose definition it is to be, None where there is none yet;
    ``connectors`` are those of the deployer by name. Takes any JSON value as definition. Reads the
    workflows that it names, and the time where a schedule has only one.
    """
    issues, sound = read(definition, REGISTRY)
    if sound is None:
        return in_order(issues)
    return in_order(
        itertools.chain(
            issues,
            publish_faults(sound, REGISTRY),
            _unserved(sound, NodeLimits(connectors=connectors)),
            naming.faults(connection, actor, metronome_id, sound),
            _passed(connection, sound),
        )
    )


def demand_publishable(
    connection: Connection,
    actor: Actor,
    metronome_id: str | None,
    definition: dict[str, Any],
    connectors: Mapping[str, Connector],
) -> None:
    """Raise Invalid with the code ``not_publishable`` where ``check_publishable`` finds an error.

    Its details are the faults by field, as all errors have them.
    """
    issues = check_publishable(connection, actor, metronome_id, definition, connectors)
    errors = [issue for issue in issues if issue.level == "error"]
    if errors:
        raise not_publishable(errors)


def not_publishable(errors: list[Issue]) -> Invalid:
    """The refusal to publish a definition with these faults."""
    return definitions.refusal("the definition can't be published", "not_publishable", errors)


def validate(
    db: Database,
    actor: Actor,
    metronome_id: str | None,
    subject: Subject,
    mode: Mode,
    connectors: Mapping[str, Connector],
) -> list[Issue]:
    """The faults of a workflow's draft, of a version of it, or of a definition; saves nothing.

    Raises NotFound for an unknown workflow, Invalid for a version that is none of it.
    """

    def query(connection: Connection) -> list[Issue]:
        definition = _definition(connection, actor, metronome_id, subject)
        if mode == "shape":
            return in_order(check_shape(definition, REGISTRY))
        return check_publishable(connection, actor, metronome_id, definition, connectors)

    return db.read(query)


def _definition(
    connection: Connection, actor: Actor, metronome_id: str | None, subject: Subject
) -> dict[str, Any]:
    if metronome_id is None:
        return subject.definition or {}
    organization = actor.organization_id
    metronome = metronomes.get(connection, organization, metronome_id)
    if metronome is None:
        raise metronome_service.not_found()
    if subject.definition is not None:
        return subject.definition
    if subject.version_id is None:
        return metronome.definition
    version = versions.get(connection, organization, metronome_id, subject.version_id)
    if version is None:
        message = "is not a version of this metronome"
        raise Invalid(f"versionId {message}", details={"versionId": [message]})
    return version.definition


def _passed(connection: Connection, sound: Sound) -> Iterator[Issue]:
    """The schedules whose only time is over; the time is asked for where there is such a one."""
    once = []
    for node in sound.nodes():
        if node.kind == "trigger" and type_of(node) == PERIODIC:
            with contextlib.suppress(ValueError):  # its faults are told already
                if schedule.parse(node.config).kind == schedule.ONE_TIME:
                    once.append(node)
    now = triggers.now(connection) if once else None
    for node in once:
        if now is not None and schedule.first_due(node.config, now) is None:
            message = "This time is over: the schedule will start no run."
            yield sound.issue("warning", "schedule_is_over", message, node, "config.scheduledTime")


def _unserved(sound: Sound, limits: NodeLimits) -> Iterator[Issue]:
    """The nodes whose work nobody does."""
    for node in sound.nodes():
        kind = REGISTRY[node.kind]
        if any(True for _ in kind.missing(node.config)):
            continue
        unserved = kind.unserved(node.config, limits, node.subtype)
        if unserved is not None:
            code = "no_connector" if unserved.surely else "unknown_function"
            level: Literal["error", "warning"] = "error" if unserved.surely else "warning"
            yield sound.issue(level, code, unserved.message, node)
