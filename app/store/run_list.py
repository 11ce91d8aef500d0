"""Lists of runs: a page at a time, newest first, along an index whatever the table's size."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, exists, literal, or_, select, true, union_all
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from app.domain.models import Page, Run
from app.ids import first_id
from app.store import rows
from app.store.schema import metronomes, runs

# A search reads the newest runs that there are, until the page is full, but no more than these:
# nothing can be looked up by a part of a text.
SEARCHED = 10_000
# The order of ids is that of the clocks of the hosts that made them, which may differ by so much.
CLOCKS_DIFFER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None and () mean any. ``created_before`` itself is out of the range."""

    statuses: tuple[str, ...] = ()
    search: str | None = None
    project_id: str | None = None
    ticket_id: str | None = None
    parent_run_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def page(
    connection: Connection,
    organization_id: str,
    metronome_id: str | None,
    wanted: RunFilter,
    part: Page,
) -> list[Run]:
    """A page of runs, newest first.

    They are of one workflow; without a ``metronome_id``, of all those of the organization.
    """
    query = _page(organization_id, metronome_id, wanted, part)
    return [rows.run(row) for row in connection.execute(query)]


def of_metronome(
    connection: Connection, organization_id: str, metronome_id: str, wanted: RunFilter, part: Page
) -> list[Run] | None:
    """A page of the runs of a workflow, newest first; None where there is no such workflow."""
    listed = _page(organization_id, metronome_id, wanted, part).subquery()
    # There is a row in any case, so that an empty page can be told from an unknown workflow.
    there = exists().where(
        metronomes.c.id == metronome_id, metronomes.c.organization_id == organization_id
    )
    query = (
        select(*listed.c, there)
        .select_from(select(literal(1)).subquery().outerjoin(listed, true()))
        .order_by(listed.c.id.desc())
    )
    found = connection.execute(query).all()
    if found[0][0] is None:
        return [] if found[0][-1] else None
    return [rows.run(row) for row in found]


def _page(
    organization_id: str, metronome_id: str | None, wanted: RunFilter, part: Page
) -> Select[Any]:
    scope = _scope(organization_id, metronome_id, wanted, part)
    count = part.limit + part.offset
    if wanted.search:
        found = _searched(scope, wanted.statuses, wanted.search, count)
    else:
        found = _newest(scope, wanted.statuses, count)
    listed = found.subquery()
    return select(listed).order_by(listed.c.id.desc()).limit(part.limit).offset(part.offset)


def _scope(
    organization_id: str, metronome_id: str | None, wanted: RunFilter, part: Page
) -> list[ColumnElement[bool]]:
    """What the listed runs have in common, but for their statuses and a search."""
    equal = (
        (runs.c.organization_id, organization_id),
        (runs.c.metronome_id, metronome_id),
        (runs.c.parent_run_id, wanted.parent_run_id),
        (runs.c.attached_project_id, wanted.project_id),
        (runs.c.attached_ticket_id, wanted.ticket_id),
    )
    scope: list[ColumnElement[bool]] = [
        column == value for column, value in equal if value is not None
    ]
    if part.after is not None:
        scope.append(runs.c.id < part.after)
    if (after := wanted.created_after) is not None:
        scope += [runs.c.created_at >= after, runs.c.id >= first_id("run", after - CLOCKS_DIFFER)]
    if (before := wanted.created_before) is not None:
        scope += [runs.c.created_at < before, runs.c.id < first_id("run", before + CLOCKS_DIFFER)]
    return scope


def _newest(scope: list[ColumnElement[bool]], statuses: tuple[str, ...], count: int) -> Any:
    """The newest ``count`` runs, and perhaps more. Each status has an index in the right order."""

    def of(*more: ColumnElement[bool]) -> Select[Any]:
        return (
            select(*(runs.c[name] for name in rows.RUN_FIELDS))
            .where(*scope, *more)
            .order_by(runs.c.id.desc())
            .limit(count)
        )

    wanted = dict.fromkeys(statuses)
    if len(wanted) < 2:
        return of(*(runs.c.status == status for status in wanted))
    parts = [of(runs.c.status == status).subquery() for status in wanted]
    return union_all(*(select(part) for part in parts))


def _searched(
    scope: list[ColumnElement[bool]], statuses: tuple[str, ...], search: str, count: int
) -> Any:
    """The newest ``count`` runs in which a text occurs; and that whose id or key it is."""
    recent = _newest(scope, statuses, SEARCHED).subquery()
    named_status = [runs.c.status.in_(statuses)] if statuses else []
    named = select(*(runs.c[name] for name in rows.RUN_FIELDS)).where(
        *scope, *named_status, or_(runs.c.id == search, runs.c.idempotency_key == search)
    )
    holding = (
        select(recent)
        .where(_holds(recent.c, search), recent.c.id != search)
        .where(recent.c.idempotency_key.is_distinct_from(search))
        .order_by(recent.c.id.desc())
        .limit(count)
        .subquery()
    )
    return union_all(select(holding), named)


def _holds(
    columns: ReadOnlyColumnCollection[str, ColumnElement[Any]], search: str
) -> ColumnElement[bool]:
    """Whether the text occurs in what a person would search a run by."""
    names = ("error", "idempotency_key", "trigger_type", "attached_project_id")
    condition = columns["id"].icontains(search, autoescape=True)
    for name in (*names, "attached_ticket_id"):
        condition = condition | columns[name].icontains(search, autoescape=True)
    return condition
