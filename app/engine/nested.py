"""Nested runs: starting one, hearing of its end, and cancelling those that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import orjson
import psycopg2
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.db import Database, RawConnection
from app.domain.errors import ExpressionError
from app.domain.jsonvalue import dumps
from app.domain.lifecycle import CANCEL
from app.domain.models import Actor
from app.domain.outcomes import Failed
from app.domain.outcomes import Spawn as Wanted
from app.engine.frames import Parked
from app.engine.link import Disconnected, is_passing
from app.engine.writer import Writer
from app.ids import new_id
from app.services import concurrency
from app.store import metronomes, nested, transitions, versions
from app.store.boundary import Spawn
from app.store.concurrency import REJECT, Group, Policy
from app.store.leases import Claimed

T = TypeVar("T")

MAX_DEPTH = 10  # runs below the first one
MAX_INPUT_BYTES = 10_000_000  # as JSON
TRIGGER = "metronome"  # what starts such a run


class Nested:
    """What the interpreter needs to know of the runs below the one that it walks."""

    def __init__(
        self, db: Database, writer: Writer, free: Callable[[Iterable[Group]], None]
    ) -> None:
        """``free`` is told of the groups in which places may be free, or are wanted."""
        self._db = db
        self._writer = writer
        self._free = free

    def prepare(self, claimed: Claimed, wanted: Wanted, seq: int) -> Spawn | Failed:
        """The run that the step ``seq`` is to start, or why it can't."""
        named = wanted.workflow_id or wanted.workflow_name or ""
        found = self._writer.run(
            lambda c: nested.find(
                c, claimed.organization_id, wanted.workflow_id, wanted.workflow_name
            )
        )
        if not found:
            return Failed(f"there is no workflow '{named}'", retryable=False)
        if len(found) > 1:
            return Failed(f"there are several workflows '{named}'; use workflowId", retryable=False)
        (workflow,) = found
        if workflow.status == metronomes.ARCHIVED:
            return Failed(f"the workflow '{named}' is archived", retryable=False)
        if claimed.depth >= MAX_DEPTH:
            message = f"runs are nested {MAX_DEPTH} deep at most, and this one already is"
            return Failed(message, retryable=False)
        if workflow.id in self._writer.run(lambda c: nested.line(c, claimed.id)):
            message = f"the workflow '{named}' would run inside of itself"
            return Failed(message, retryable=False)
        actor = _actor(claimed)
        version_id = workflow.version_id or self._do(
            lambda connection: versions.of_draft(connection, actor, workflow.id)
        )
        if version_id is None:
            return Failed(f"there is no workflow '{named}'", retryable=False)
        spawn = Spawn(
            seq=seq,
            run_id=new_id("run", after=claimed.id),
            metronome_id=workflow.id,
            version_id=version_id,
            input=dumps(wanted.input, "input", max_bytes=MAX_INPUT_BYTES),
        )
        return spawn if workflow.policy is None else self._grouped(spawn, wanted, workflow.policy)

    def _grouped(self, spawn: Spawn, wanted: Wanted, policy: Policy) -> Spawn | Failed:
        """The run in its group; Failed where there is no place in it, and nobody may wait."""
        try:
            key = concurrency.key_of(
                policy.expression,
                run=concurrency.scope_of_run(spawn.run_id, spawn.metronome_id, spawn.version_id),
                trigger_type=TRIGGER,
                input=wanted.input,
            )
        except ExpressionError as error:
            return Failed(f"the workflow's concurrency key: {error.message}", retryable=False)
        if policy.on_limit == REJECT:
            group = (spawn.metronome_id, key)
            if not self._writer.run(lambda c: nested.has_room(c, group, policy.most)):
                return Failed(concurrency.describe(policy, key))
        return replace(spawn, concurrency_key=key)

    def began(self, spawns: Sequence[Spawn]) -> None:
        """These runs have begun: those that are limited get a place, where there is one."""
        self._free(
            (spawn.metronome_id, spawn.concurrency_key)
            for spawn in spawns
            if spawn.concurrency_key is not None
        )

    def hear(self, waiting: Sequence[Parked]) -> None:
        """Give those that wait for a nested run its end, where it has ended."""
        children = {p.seq: p for p in waiting if "childRunId" in p.metadata and p.result is None}
        if not children:
            return
        pairs = [(seq, parked.metadata["childRunId"]) for seq, parked in children.items()]
        for end in self._writer.run(lambda c: nested.ends(c, pairs)):
            parked = children[end.seq]
            parked.result = {
                "runId": parked.metadata["childRunId"],
                "status": end.status,
                "output": orjson.loads(end.output) if end.output else None,
                "error": end.error,
            }

    def cancel(self, claimed: Claimed, seqs: Sequence[int] | None = None) -> None:
        """Cancel the nested runs of these steps (None: all), for which nobody waits any more."""
        if seqs is not None and not seqs:
            return
        below = self._writer.run(lambda c: nested.still_open(c, claimed.id, seqs))
        for metronome_id, run_id in below:
            request = partial(
                transitions.request,
                action=CANCEL,
                actor=_actor(claimed),
                metronome_id=metronome_id,
                run_id=run_id,
            )
            if (cancelled := self._do(request)) is not None:
                self._free(cancelled.groups)

    def _do(self, work: Callable[[Connection], T]) -> T:
        """Do ``work``, which must be safe to repeat, as the API would; again while it can't."""

        def attempt(_: RawConnection) -> T:
            try:
                with self._db.connect() as connection:
                    return work(connection)
            except DBAPIError as error:
                if isinstance(error.orig, psycopg2.Error) and is_passing(error.orig):
                    raise Disconnected(str(error.orig).strip()) from error
                raise

        return self._writer.run(attempt)


def _actor(claimed: Claimed) -> Actor:
    return Actor(concurrency.EXECUTOR, claimed.user_id, claimed.organization_id)
