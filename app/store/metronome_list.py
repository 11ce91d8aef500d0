"""Lists of workflows: a page at a time, newest first, along an index."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select, union_all
from sqlalchemy.sql import ColumnElement

from app.domain.models import Metronome, Page
from app.ids import first_id
from app.store import rows
from app.store.metronomes import ARCHIVED
from app.store.run_list import CLOCKS_DIFFER
from app.store.schema import metronomes, versions


@dataclass(frozen=True, slots=True)
class MetronomeFilter:
    """Which workflows to list; None and () mean any. ``created_before`` itself is out of the range.

    Archived ones are listed where ``statuses`` names them, or ``include_archived`` is set.
    """

    statuses: tuple[str, ...] = ()
    include_archived: bool = False
    search: str | None = None  # a part of the name, in any case
    created_after: datetime | None = None
    created_before: datetime | None = None


def page(
    connection: Connection, organization_id: str, wanted: MetronomeFilter, part: Page
) -> list[Metronome]:
    """A page of the workflows of an organization, newest first."""
    scope = _scope(organization_id, wanted, part)
    found = _newest(scope, tuple(dict.fromkeys(wanted.statuses)), part.limit + part.offset)
    # Only then what is looked up for each of them, and their definitions.
    listed = found.order_by(found.selected_columns.id.desc()).limit(part.limit).offset(part.offset)
    ids = listed.subquery()
    shown = [
        versions.c.version if name == "published_version_number" else metronomes.c[name]
        for name in rows.METRONOME_FIELDS
    ]
    query = (
        select(*shown)
        .join_from(ids, metronomes, metronomes.c.id == ids.c.id)
        .join(versions, versions.c.id == metronomes.c.published_version_id, isouter=True)
        .order_by(metronomes.c.id.desc())
    )
    return [rows.metronome(row) for row in connection.execute(query)]


def _scope(organization_id: str, wanted: MetronomeFilter, part: Page) -> list[ColumnElement[bool]]:
    """What the listed workflows have in common, but for their statuses."""
    scope: list[ColumnElement[bool]] = [metronomes.c.organization_id == organization_id]
    if not wanted.statuses and not wanted.include_archived:
        scope.append(metronomes.c.status != ARCHIVED)
    if wanted.search:
        scope.append(metronomes.c.name.icontains(wanted.search, autoescape=True))
    if part.after is not None:
        scope.append(metronomes.c.id < part.after)
    if (after := wanted.created_after) is not None:
        scope.append(metronomes.c.created_at >= after)
        scope.append(metronomes.c.id >= first_id("met", after - CLOCKS_DIFFER))
    if (before := wanted.created_before) is not None:
        scope.append(metronomes.c.created_at < before)
        scope.append(metronomes.c.id < first_id("met", before + CLOCKS_DIFFER))
    return scope


def _newest(scope: list[ColumnElement[bool]], statuses: tuple[str, ...], count: int) -> Any:
    """The ids of the newest ``count`` workflows, and perhaps more. Each status has an index."""

    def of(*more: ColumnElement[bool]) -> Select[Any]:
        return (
            select(metronomes.c.id)
            .where(*scope, *more)
            .order_by(metronomes.c.id.desc())
            .limit(count)
        )

    if len(statuses) < 2:
        return select(of(*(metronomes.c.status == one for one in statuses)).subquery())
    parts = [of(metronomes.c.status == status).subquery() for status in statuses]
    return union_all(*(select(part) for part in parts))
