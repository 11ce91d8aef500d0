"""Limits on concurrent runs: which group a run belongs to, and who gets a place that is free."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app.db import LOCKED, Database
from app.domain.errors import ExpressionError
from app.domain.models import Actor
from app.domain.values import text
from app.nodes.bindings import expression_of
from app.store import cancels, concurrency
from app.store.concurrency import Group, Policy, Settled

log = logging.getLogger(__name__)

EXECUTOR = "executor"  # who acts, in the audit, where no key does
MAX_KEY_BYTES = 500  # of a group's key, in UTF-8: it stands in an index
_ROUNDS = 3  # of one group, at once; each may cancel so many of the oldest

# Who gives on the places that have become free in groups, later: ``Places.free``, or ``leave``.
Free = Callable[[Iterable[Group], Actor | None], None]


def key_of(
    expression: str | None, *, run: Mapping[str, Any], trigger_type: str, input: Mapping[str, Any]
) -> str:
    """The key of the group that a run belongs to: what the expression gives, as text.

    Without an expression all runs of the workflow are one group. The expression sees ``run``,
    ``trigger.type`` and ``trigger.input``. Raises ExpressionError, which names the expression.
    """
    if expression is None:
        return ""
    scope = {"run": run, "trigger": {"type": trigger_type, "input": input}}
    key = text(expression_of(expression).evaluate(scope))
    if "\x00" in key:
        raise ExpressionError(f"the concurrency key '{expression}' gives a text with a NUL")
    size = len(key.encode(errors="surrogatepass"))
    if size > MAX_KEY_BYTES:
        message = f"gives {size:,} bytes, and {MAX_KEY_BYTES} is the most"
        raise ExpressionError(f"the concurrency key '{expression}' {message}")
    return key


def scope_of_run(run_id: str, metronome_id: str, version_id: str) -> dict[str, Any]:
    """What ``run`` is in the expression of a key: as in the run's own bindings, at its start."""
    return {"id": run_id, "metronomeId": metronome_id, "versionId": version_id, "attempt": 1}


def settle(db: Database, groups: Iterable[Group], actor: Actor | None = None) -> list[Group]:
    """Give the free places of these groups to those that wait for them.

    Where the workflow's policy is to cancel the oldest, they are cancelled first, by ``actor``, or
    without one by the executor in the name of the workflow's owner. Of each group only so many at
    once: the groups in which there is more to do are answered. Never raises because of the
    database: what could not be done now is done by the executors' sweep.
    """
    left = list(dict.fromkeys(groups))
    done: set[Group] = set()
    locked: set[str] = set()
    unfinished: list[Group] = []
    try:
        while left:
            group = left.pop()
            if group in done or group[0] in locked:
                continue
            done.add(group)
            try:
                others, more = _settle(db, group, actor)
            except DBAPIError as error:
                if not _is_locked(error):
                    raise
                # Somebody else has this workflow for long: those of others don't wait for it.
                locked.add(group[0])
                continue
            left.extend(others)
            if more:
                unfinished.append(group)
    except SQLAlchemyError as error:
        log.warning("places are given later", extra={"error": str(error).strip()})
    for metronome_id in locked:
        log.warning("places are given later", extra={"metronomeId": metronome_id, "why": "locked"})
    return unfinished


def make_room(db: Database, group: Group, actor: Actor) -> list[Group]:
    """Cancel the oldest of a group for a run that ``actor`` has just created, and admit it.

    So many at most that the caller can wait for it. The groups in which there is more to do are
    answered, this one or those of runs below the ones that were cancelled. Never raises because of
    the database.
    """
    try:
        others, more = _settle(db, group, actor)
    except SQLAlchemyError as error:
        log.warning("places are given later", extra={"error": str(error).strip()})
        return [group]
    return [*others, group] if more else others


def leave(groups: Iterable[Group], actor: Actor | None = None) -> None:
    """Leave these groups to the executors' sweep."""


def _is_locked(error: DBAPIError) -> bool:
    return getattr(error.orig, "pgcode", None) == LOCKED


def _settle(db: Database, group: Group, actor: Actor | None) -> tuple[list[Group], bool]:
    """Settle one group; the others in which the runs that were cancelled have left places, and
    whether there is more to do in this one."""
    others: dict[Group, None] = {}
    for _ in range(_ROUNDS):
        with db.connect() as connection:
            settled = concurrency.settle(connection, group)
        if settled is None or not (settled.excess or settled.again):
            return list(others), False
        for run_id in settled.excess:
            others |= dict.fromkeys(_cancel(db, group, run_id, settled, actor))
        others.pop(group, None)
    return list(others), True


def _cancel(
    db: Database, group: Group, run_id: str, settled: Settled, actor: Actor | None
) -> tuple[Group, ...]:
    metronome_id, key = group
    by = actor or Actor(EXECUTOR, settled.user_id, settled.organization_id)
    by = replace(by, remembered=False)  # what is done for a request may outlive its key
    payload = {"reason": "concurrency_limit", "concurrencyKey": key}
    with db.connect() as connection:
        cancelled = cancels.cancel(
            connection, by, metronome_id, run_id, payload=orjson.dumps(payload).decode()
        )
    return () if cancelled is None else cancelled.groups


def readmit(db: Database, metronome_id: str, actor: Actor | None = None) -> None:
    """Settle all groups of a workflow in which runs wait: after its policy was changed."""
    with db.connect() as connection:
        groups = concurrency.waiting_groups(connection, metronome_id)
    settle(db, groups, actor)


def describe(policy: Policy, key: str) -> str:
    """A limit that has been reached, in words."""
    runs = "run" if policy.most == 1 else "runs"
    where = f" with the concurrency key '{key}'" if policy.expression is not None else ""
    return f"the metronome allows {policy.most} {runs} at once{where}, and they are at work"
