"""docs/monitoring.rst: its queries work and read no large table whole, its log lines are there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text

from app.db import Database
from tests.conventions.test_doc_examples import DOCS, blocks
from tests.processes import ROOT

PAGE = DOCS / "monitoring.rst"
QUERIES = [one.strip() for block in blocks(PAGE, "sql") for one in block.split(";") if one.strip()]
_MESSAGE = re.compile(r"^   \* - ``([a-z][a-z ,]+)``$", re.MULTILINE)


@pytest.fixture(scope="module")
def sources() -> str:
    """All of the code."""
    return "\n".join(file.read_text() for file in (ROOT / "app").rglob("*.py"))


@pytest.fixture
def many(db: Database) -> Iterator[Connection]:
    """A database with so many finished runs that a planner would not read them all."""
    with db.connect() as connection:
        connection.execute(
            text("""
            INSERT INTO metronomes (id, organization_id, user_id, name, status, definition)
            SELECT 'met_' || n, 'o', 'u', 'n', 'draft', '{}' FROM generate_series(1, 10) n
            """)
        )
        connection.execute(
            text("""
            INSERT INTO runs (id, organization_id, metronome_id, user_id, version_id,
                trigger_type, status, input, started_at, completed_at)
            SELECT 'run_' || lpad(to_hex(n), 12, '0'), 'o', 'met_' || 1 + n % 10, 'u', 'v',
                'manual', 'completed', '{}', now(), now()
            FROM generate_series(1, 20000) n
            """)
        )
        connection.execute(text("ANALYZE runs"))
        connection.execute(text("ANALYZE metronomes"))
        yield connection


def test_there_is_a_query_for_each_part() -> None:
    assert len(QUERIES) == 9


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_a_query_reads_no_large_table_from_end_to_end(many: Connection, query: str) -> None:
    # past SQLAlchemy, for which a colon begins a parameter
    plan = "\n".join(row[0] for row in many.exec_driver_sql(f"EXPLAIN ANALYZE {query}"))
    assert "Seq Scan on runs" not in plan, plan


def test_what_is_in_doubt_is_found(many: Connection) -> None:
    (query,) = [one for one in QUERIES if "in_doubt" in one]
    assert many.exec_driver_sql(query).all() == []
    many.execute(
        text("""
        UPDATE runs SET status = 'paused', in_doubt = true, completed_at = NULL, error = 'why'
        WHERE id = 'run_000000000007'
        """)
    )
    ((metronome, run, why, _),) = many.exec_driver_sql(query)
    assert (metronome, run, why) == ("met_8", "run_000000000007", "why")


def test_the_lines_of_the_log_are_written(sources: str) -> None:
    heading, *messages = _MESSAGE.findall(PAGE.read_text())
    assert heading == "msg"
    assert len(messages) == 9
    for message in messages:
        assert f'"{message}"' in sources, message
