"""Every list of the API with a million rows behind it: no plan reads a table from end to end.

The statements are those that the API sends, caught on their way to the database. The lists, and
what each can be filtered by, are read from the OpenAPI document, so that none is forgotten.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from app import create_app
from app.config import Settings
from app.db import Database
from app.services import keys
from tests import servers
from tests.api.conftest import Caller

ROWS = 1_000_000
BIG = ("runs", "steps", "audit_events", "trigger_events")
PREPARED = ("/steps?",)  # tests/store/test_prepared.py looks at their plans
PAGES, PAGES_OF_A_SEARCH = 3_000, 15_000  # of 8 kB, that a list may read

# A tenth of all belongs to the workflow that is asked for, nearly all of it completed.
_FILL = """
INSERT INTO runs (id, organization_id, metronome_id, user_id, version_id, trigger_type, input,
    status, due_at, started_at, completed_at, attached_project_id, parent_run_id, parent_seq,
    root_run_id, depth, created_at)
SELECT 'run_' || lpad(to_hex(1700000000000 + n * 1000), 12, '0') || '7000'
        || lpad(n::text, 16, '0'),
    'acme', 'met_' || n % 10, 'ada', 'ver_1', 'manual', '{}',
    CASE WHEN n % 50000 = 0 THEN 'failed' ELSE 'completed' END, NULL, now(), now(),
    CASE WHEN n % 1000 = 0 THEN 'p' END,
    CASE WHEN n % 100 = 1 THEN 'run_x' END, CASE WHEN n % 100 = 1 THEN 1 END,
    CASE WHEN n % 100 = 1 THEN 'run_x' END, CASE WHEN n % 100 = 1 THEN 1 ELSE 0 END,
    to_timestamp(1700000000 + n)
FROM generate_series(1, :rows) n;

INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status, attempt, completed_at)
SELECT 'run_' || lpad(to_hex(1700000000000 + (n / 4) * 1000), 12, '0') || '7000'
        || lpad((n / 4)::text, 16, '0'),
    n % 4, 'met_0', 'n', 'x', 'completed', 1, now()
FROM generate_series(4, :rows + 3) n;

INSERT INTO audit_events (id, organization_id, metronome_id, user_id, actor_user_id, actor_key_id,
    run_id, action, created_at)
SELECT 'evt_' || lpad(to_hex(1700000000000 + n * 1000), 12, '0'), 'acme', 'met_' || n % 10, 'ada',
    CASE WHEN n % 50000 = 0 THEN 'bob' ELSE 'ada' END, 'key_1', 'run_' || n,
    CASE WHEN n % 50000 = 0 THEN 'version.published' ELSE 'run.created' END,
    to_timestamp(1700000000 + n)
FROM generate_series(1, :rows) n;

INSERT INTO trigger_events (id, organization_id, metronome_id, trigger_type, status, payload,
    created_at)
SELECT 'tev_' || lpad(to_hex(1700000000000 + n * 1000), 12, '0'), 'acme', 'met_' || n % 10,
    CASE WHEN n % 50000 = 0 THEN 'email' ELSE 'github' END,
    CASE WHEN n % 50000 = 0 THEN 'failed' ELSE 'matched' END, '{}', to_timestamp(1700000000 + n)
FROM generate_series(1, :rows) n;

INSERT INTO metronomes (id, organization_id, user_id, name, status, definition)
SELECT 'met_' || n, 'acme', 'ada', 'n', 'draft', '{"nodes": [], "edges": []}'
FROM generate_series(0, 9) n;
"""

# What to ask for, by the name of the query's parameter; None: not in a plan of its own.
VALUES: dict[str, list[str] | None] = {
    "limit": None,
    "offset": ["100"],
    "cursor": [""],
    "status": ["failed", "failed,completed"],
    "q": ["nothing", "run_0"],
    "parentRunId": ["run_x"],
    "projectId": ["p"],
    "ticketId": ["t"],
    "createdAfter": ["2023-11-15T00:00:00Z"],
    "createdBefore": ["2023-11-15T00:00:00Z"],
    "metronomeId": ["met_1", "met_none"],
    "runId": ["run_5"],
    "versionId": ["ver_none"],
    "action": ["version.published", "nothing.done"],
    "actorUserId": ["bob", "nobody"],
    "triggerType": ["email", "telegram"],
    "includeArchived": ["true"],
    "view": None,
}
# A cursor in the middle, by the last word of the path.
CURSORS = {
    "approvals": "step_{middle}_000001",
    "audit-events": "evt_{middle}",
    "children": "run_{middle}",
    "deployments": "evt_{middle}",
    "metronomes": "met_{middle}",
    "owner-candidates": "ada",
    "runs": "run_{middle}",
    "schedules": "trg_{middle}",
    "steps": "1",
    "trigger-events": "tev_{middle}",
    "trigger-summary": "tev_{middle}",
    "versions": "1",
}


@pytest.fixture(scope="module")
def full(server_url: str, worker_id: str) -> Iterator[tuple[Caller, Database]]:
    """An API with a million rows in each big table."""
    with servers.database(server_url, f"full_{worker_id}", template=servers.TEMPLATE) as url:
        db = Database(url)
        with db.connect() as connection:
            for statement in _FILL.split(";\n"):
                if statement.strip():
                    connection.execute(text(statement), {"rows": ROWS})
            connection.execute(text("VACUUM ANALYZE"))
        _, secret = keys.create_key(db, name="k", user_id="ada", organization_id="acme")
        app = create_app(Settings(database_url=url, listen=False))
        yield Caller(app, secret), app.extensions["metronome"].db
        app.extensions["metronome"].db.close()
        db.close()


def _lists(caller: Caller) -> Iterator[tuple[str, list[str]]]:
    """The path of each list, and the names of what it can be asked."""
    document = json.loads(caller.get("/openapi.json").get_data())
    for path, operations in document["paths"].items():
        operation = operations.get("get", {})
        names = [one["name"] for one in operation.get("parameters", []) if one.get("in") == "query"]
        if "limit" in names:
            yield path, names


def test_no_list_reads_a_table_from_end_to_end(full: tuple[Caller, Database]) -> None:
    caller, db = full
    middle = f"{1_700_000_000_000 + ROWS // 2 * 1000:012x}"
    run = f"run_{1_700_000_000_000 + 1000:012x}7000{1:016d}"
    asked = 0
    with db.connect() as explainer:
        for path, names in _lists(caller):
            concrete = path.replace("{metronomeId}", "met_1").replace("{runId}", run)
            for name in ["", *names]:
                assert name in VALUES or not name, f"{path}: what to ask of {name}?"
                for value in (VALUES[name] or []) if name else [""]:
                    if name == "cursor":
                        value = CURSORS[path.rpartition("/")[2]].replace("{middle}", middle)
                    query = f"{name}={value}" if name else ""
                    _look(caller, db, explainer, f"{concrete}?{query}")
                    asked += 1
    assert asked > 40


def _look(caller: Caller, db: Database, explainer: Connection, path: str) -> None:
    """Ask for a list, and look at how each of its statements is carried out."""
    sent: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        sent.append((statement, parameters))

    engine = explainer.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        answer = caller.get(path)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert answer.status_code in (200, 422), (path, answer.get_data(as_text=True))
    if answer.status_code == 422:  # a status of another noun
        assert "status=" in path, (path, answer.get_data(as_text=True))
        return
    assert sent or any(one in path for one in PREPARED), path
    for statement, parameters in sent:
        plan = explainer.exec_driver_sql(
            f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, FORMAT TEXT) {statement}",
            parameters,
        )
        lines = [str(line) for line in plan.scalars()]
        told = f"{path}\n{statement}\n" + "\n".join(lines)
        scans = [line for line in lines if re.search(rf"Seq Scan on ({'|'.join(BIG)})\b", line)]
        assert not scans, told
        read = re.search(r"Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?", "\n".join(lines))
        pages = sum(int(number or 0) for number in read.groups()) if read else 0
        assert pages < (PAGES_OF_A_SEARCH if "q=" in path else PAGES), told
