"""The list of audit events reads along an index, whatever it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from app.db import Database
from app.domain.models import Page
from app.store import audit
from app.store.audit import AuditFilter

_START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def many(db: Database) -> Iterator[Connection]:
    """A connection to a database with so many events that a planner would not read them all."""
    with db.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_events (id, organization_id, user_id, actor_user_id,"
                " actor_key_id, action, metronome_id, run_id, version_id)"
                " SELECT 'evt_' || lpad(to_hex(n), 32, '0'), 'org' || n % 3, 'u', 'user' || n % 50,"
                " 'k', 'action.' || chr(97 + n % 20), 'met' || n % 100, 'run' || n % 2000,"
                " 'ver' || n % 200 FROM generate_series(1, 20000) n"
            )
        )
        connection.execute(text("ANALYZE audit_events"))
        yield connection


@pytest.mark.parametrize(
    "wanted",
    [
        AuditFilter(),
        AuditFilter(metronome_id="met1"),
        AuditFilter(run_id="run1"),
        AuditFilter(version_id="ver1"),
        AuditFilter(actor_user_id="user1"),
        AuditFilter(actions=("action.a",)),
        AuditFilter(actions=("action.a", "action.b")),
        AuditFilter(created_after=_START),
        AuditFilter(created_before=_START, metronome_id="met1", actor_user_id="user1"),
    ],
)
def test_no_filter_reads_the_table_from_end_to_end(many: Connection, wanted: AuditFilter) -> None:
    for part in (Page(101), Page(101, 50), Page(101, 0, "evt_" + "0" * 28 + "ffff")):
        plan = explained(many, wanted, part)
        assert "Seq Scan" not in plan, plan
        assert "audit_events_" in plan


def test_several_actions_are_one_list_in_order(many: Connection) -> None:
    both = AuditFilter(actions=("action.a", "action.b", "action.a"))
    found = audit.page(many, "org1", both, Page(40, 10))
    ids = [one.id for one in found]
    assert len(ids) == 40
    assert ids == sorted(set(ids), reverse=True)
    assert {one.action for one in found} == {"action.a", "action.b"}
    whole = audit.page(many, "org1", both, Page(50))
    assert [one.id for one in whole[10:]] == ids


def explained(connection: Connection, wanted: AuditFilter, part: Page) -> str:
    """The plan of the statement by which these events are listed."""
    seen: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        seen.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    audit.page(connection, "org1", wanted, part)
    event.remove(connection, "before_cursor_execute", note)
    statement, parameters = seen[0]
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
    return json.dumps(plan.scalar_one())
