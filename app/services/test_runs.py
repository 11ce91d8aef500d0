"""Tests of a part of a workflow: one node, or some that are connected, without the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from app.db import Database
from app.domain.connectors import Connector
from app.domain.errors import Invalid
from app.domain.fixtures import Fixture
from app.domain.forms import has_data
from app.domain.graph import Node
from app.domain.issues import Issue
from app.domain.jsonvalue import MAX_DEPTH, check_json, dumps
from app.domain.models import Actor, Run
from app.domain.shape import MAX_BYTES, check_shape
from app.domain.slices import Slice, cut
from app.nodes import REGISTRY, RUNNABLE
from app.nodes.base import NodeLimits
from app.services import concurrency, definitions, starts
from app.services import metronomes as metronome_service
from app.services.concurrency import Free
from app.services.starts import MAX_INPUT_BYTES, RunRequest
from app.store import metronomes, versions
from app.store import starts as stored_runs

_DEEPER = 3  # levels by which a value of the fixture is deeper inside of the derived definition


@dataclass(frozen=True, slots=True)
class SliceRequest:
    """Which nodes are to be tested, and with what; ``field`` is where the caller named them.

    ``run`` says what they are nodes of (the draft where it names neither version nor definition),
    and how the test is to run. Its input is the fixture's.
    """

    run: RunRequest
    node_ids: tuple[str, ...]
    field: str
    fixture: Fixture


@dataclass(frozen=True, slots=True)
class Preview:
    """What a test would run; ``part`` is None where the definition is not sound.

    ``version_id`` is that of the version that was asked for. It is valid without an issue of the
    level error.
    """

    issues: tuple[Issue, ...]
    part: Slice | None
    version_id: str | None
    run: RunRequest

    @property
    def valid(self) -> bool:
        """Whether nothing is known that would make the test fail."""
        return all(issue.level != "error" for issue in self.issues)

    def effects(self) -> Iterator[tuple[Node, str]]:
        """The nodes that would do something outside of this service, and what that is."""
        for node in self.part.nodes if self.part is not None else ():
            effect = RUNNABLE[node.kind].effect if node.kind in RUNNABLE else None
            if effect is not None:
                yield node, effect


def preview(
    db: Database,
    actor: Actor,
    metronome_id: str,
    wanted: SliceRequest,
    connectors: Mapping[str, Connector],
) -> Preview:
    """What a test would run, and what it lacks; nothing is saved.

    ``connectors`` are those of the deployer, by name. Raises NotFound, Invalid (versionId, a
    selection that is not connected, a fixture that does not fit) or Conflict (the workflow is
    archived).
    """
    definition = db.read(
        lambda connection: _definition(connection, actor, metronome_id, wanted.run)
    )
    issues: list[Issue] = []
    if wanted.run.definition is not None:
        issues = check_shape(definition, REGISTRY)
    if any(issue.level == "error" for issue in issues):
        return Preview(tuple(issues), None, wanted.run.version_id, wanted.run)
    part = _cut(definition, wanted)
    issues += _issues(definition, part, NodeLimits(connectors=connectors))
    return Preview(tuple(issues), part, wanted.run.version_id, wanted.run)


def create(
    db: Database,
    actor: Actor,
    metronome_id: str,
    wanted: SliceRequest,
    *,
    tell: Callable[[], None],
    free: Free = concurrency.leave,
) -> tuple[Run, bool]:
    """Queue a test; the run, and False where its idempotency key had been used: the run of then.

    ``tell`` and ``free`` are as in ``starts.create``. Raises what that and ``preview`` raise, and
    Invalid where the definition that came with the request is not sound.
    """

    def read(connection: Connection) -> dict[str, Any] | Run:
        # A request that is sent again is answered, even if the draft has changed since.
        earlier = _earlier(connection, actor, metronome_id, wanted.run.idempotency_key)
        return earlier or _definition(connection, actor, metronome_id, wanted.run)

    found = db.read(read)
    if isinstance(found, Run):
        starts.check_same_type(found, wanted.run.trigger_type)
        return found, False
    if wanted.run.definition is not None:
        definitions.checked(found)
    part = _cut(found, wanted)
    run = replace(wanted.run, definition=part.definition, version_id=None, derived=True)
    return starts.create(db, actor, metronome_id, run, tell=tell, free=free)


def _earlier(
    connection: Connection, actor: Actor, metronome_id: str, key: str | None
) -> Run | None:
    if key is None:
        return None
    organization = actor.organization_id
    return stored_runs.with_idempotency_key(connection, organization, metronome_id, key)


def _definition(
    connection: Connection, actor: Actor, metronome_id: str, wanted: RunRequest
) -> dict[str, Any]:
    """The definition of which a part is to be tested."""
    organization = actor.organization_id
    metronome = metronomes.get(connection, organization, metronome_id)
    if metronome is None:
        raise metronome_service.not_found()
    starts.check_can_run(metronome.status)
    if wanted.definition is not None:
        return wanted.definition
    if wanted.version_id is None:
        return metronome.definition
    version = versions.get(connection, organization, metronome_id, wanted.version_id)
    if version is None:
        message = "is not a version of this metronome"
    elif version.status == stored_runs.ARCHIVED_VERSION:
        message = "was deleted, and can't be run any more"
    else:
        return version.definition
    raise Invalid(f"versionId {message}", details={"versionId": [message]})


def _cut(definition: dict[str, Any], wanted: SliceRequest) -> Slice:
    fixture, run = wanted.fixture, wanted.run
    dumps(run.input, run.input_field, max_bytes=MAX_INPUT_BYTES)
    given = {name: getattr(fixture, name) for name in ("steps", "branches", "errors", "loop")}
    check_json(given, "fixture", max_bytes=MAX_BYTES, max_depth=MAX_DEPTH - _DEEPER)
    part = cut(
        definition,
        wanted.node_ids,
        replace(fixture, input=run.input),
        kinds=REGISTRY,
        trigger_type=run.trigger_type,
        field=wanted.field,
    )
    size = len(dumps(part.definition, "definition", max_bytes=3 * MAX_BYTES))
    if size > MAX_BYTES:
        message = f"is bigger than {MAX_BYTES:,} bytes as JSON, together with the selected nodes"
        raise Invalid(f"fixture {message}", details={"fixture": [message]})
    return part


def _issues(definition: dict[str, Any], part: Slice, limits: NodeLimits) -> Iterator[Issue]:
    """What would make the selected nodes fail, and what of the fixture has no effect."""
    for node in part.nodes:
        kind = REGISTRY.get(node.kind)
        if kind is None:
            continue
        field = f"definition.nodes.{node.index}"
        below = f"{field}.data" if has_data(definition["nodes"][node.index]) else field
        lacks = list(kind.missing(node.config))
        for lack in lacks:
            where = f"{below}.{lack.field}"
            yield Issue("error", "incomplete_config", lack.message, where, node.id)
        unserved = None if lacks else kind.unserved(node.config, limits, node.subtype)
        if unserved is not None and unserved.surely:
            yield Issue("error", "no_connector", unserved.message, field, node.id)
        elif unserved is not None:
            yield Issue("warning", "unknown_function", unserved.message, field, node.id)
    for field in part.unused:
        message = "It has no effect: nothing stands in for that node, or it reads nothing of it."
        yield Issue("warning", "unused_fixture", message, field)
