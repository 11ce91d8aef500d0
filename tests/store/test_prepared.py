"""Messages that are planned once for each connection."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DataError

from app.db import Database
from app.domain.lifecycle import CANCEL, CANCELLED, QUEUED, WAITING_APPROVAL
from app.domain.models import Decision
from app.store import cancels, decisions, retries, runs, trace, transitions
from app.store.prepared import Message
from tests import servers
from tests.store.world import ACTOR, METRONOME, World


def cancel(connection: Connection, run_id: str) -> None:
    """Cancel a run on this connection."""
    done = transitions.request(connection, CANCEL, ACTOR, METRONOME, run_id)
    assert done is not None
    assert done.moved


def prepared(connection: Connection) -> list[str]:
    """The names of what is prepared on this connection."""
    found = connection.exec_driver_sql("SELECT name FROM pg_prepared_statements ORDER BY name")
    return list(found.scalars())


def test_it_is_prepared_once(world: World) -> None:
    with world.db.connect() as connection:
        for _ in range(3):
            cancel(connection, world.put(QUEUED))
            assert len(prepared(connection)) == 3
        cancel(connection, world.put(QUEUED))


def test_a_server_on_which_nothing_is_prepared_gets_the_statements_themselves(
    world: World,
) -> None:
    with world.db.connect() as connection:
        cancel(connection, world.put(QUEUED))
        connection.exec_driver_sql("DEALLOCATE ALL")
        run_id = world.put(QUEUED)
        cancel(connection, run_id)
        assert world.audits(run_id) == ["run.cancelled"]
        cancel(connection, world.put(QUEUED))
        assert prepared(connection) == []


def test_a_server_on_which_the_name_is_taken_gets_the_statements_themselves(world: World) -> None:
    with world.db.connect() as connection:
        cancel(connection, world.put(QUEUED))
        names = prepared(connection)
        connection.exec_driver_sql("DEALLOCATE ALL")
        connection.exec_driver_sql(f"PREPARE {names[-1]} AS SELECT 1")
        connection.info.clear()  # as a new connection of a client to a server that is not
        run_id = world.put(QUEUED)
        cancel(connection, run_id)
        assert world.audits(run_id) == ["run.cancelled"]


def test_a_message_that_fails_at_first_is_prepared_all_the_same(world: World) -> None:
    run_id = world.put(WAITING_APPROVAL)
    world.put_step(run_id, 1, WAITING_APPROVAL)

    def decide(connection: Connection, seq: int | None) -> Any:
        return decisions.decide(connection, ACTOR, METRONOME, run_id, Decision(True, seq=seq))

    with world.db.connect() as connection:
        with pytest.raises(DataError):
            decide(connection, 10**12)  # no int of PostgreSQL's
        assert world.audits(run_id) == []
        assert decide(connection, None).outcome == "decided"
        assert len(prepared(connection)) == 2


MESSAGES = {
    **transitions.MESSAGES,
    "cancel of a run alone": cancels.MESSAGE.plain,
    "cancel for an actor who is remembered": cancels.MESSAGE.proving,
    "view": runs.VIEW_MESSAGE.plain,
    "steps": trace.PAGE_MESSAGE.plain,
    "retry": retries.MESSAGE,
    "approve": decisions.MESSAGES[True],
    "delete": runs.DELETE_MESSAGE,
}
PROVEN = ("key_id", "role", "user_id", "organization_id")
# What may be read by which index, and what each look-up has to bring along.
LOOKED_UP = {
    "runs_pkey": "(id = ",
    "runs_by_parent": "(parent_run_id = ",
    "steps_pkey": "(run_id = ",
    "outbox_by_step": "(run_id = ",
    "api_keys_pkey": "(id = ",
}


@pytest.fixture
def empty(server_url: str, worker_id: str) -> Iterator[Database]:
    """A database that is as new: what other tests leave in the statistics changes plans."""
    with servers.database(server_url, f"new_{worker_id}", template=servers.TEMPLATE) as url:
        made = Database(url)
        yield made
        made.close()


@pytest.mark.parametrize("name", MESSAGES)
def test_a_plan_that_was_made_for_empty_tables_reads_no_table_from_end_to_end(
    empty: Database, name: str
) -> None:
    values = dict.fromkeys(
        ("organization_id", "metronome_id", "run_id", "event_id", "actor_user_id", "actor_key_id"),
        "x",
    ) | {"payload": None}
    decision = {"decision": "approved", "comment": None, "seq": None, "node_id": None}
    values |= dict.fromkeys((f"proven_{one}" for one in PROVEN), "x")
    values |= {"after": 0, "limit": 1, "offset": 0}  # type: ignore[dict-item]
    values |= {"confirm": True, "lost": "l", "stopped": "s", "afresh": True, **decision}  # type: ignore[dict-item]
    with empty.connect() as connection:
        with contextlib.suppress(DataError):  # there is no such key
            MESSAGES[name].row(connection, values)
        found = connection.exec_driver_sql(
            "SELECT name, parameter_types FROM pg_prepared_statements ORDER BY name"
        )
        plans: list[str] = []
        for statement, types in found.all():
            arguments = ", ".join("NULL" for _ in types.strip("{}").split(","))
            plans += (
                connection.exec_driver_sql(
                    f"SET plan_cache_mode = force_generic_plan;"
                    f" EXPLAIN EXECUTE {statement}({arguments})"
                )
                .scalars()
                .all()
            )
        connection.exec_driver_sql("RESET plan_cache_mode")
    scans = [
        (line.split(" using ")[1].split(" on ")[0] if " using " in line else line, plans[at + 1])
        for at, line in enumerate(plans)
        if re.search(r"(Seq Scan|Index Scan|Index Only Scan|Bitmap|Tid).* on ", line)
    ]
    assert scans
    for index, condition in scans:
        assert index in LOOKED_UP, (index, condition)
        assert f"Index Cond: {LOOKED_UP[index]}" in condition.replace("((", "("), (index, condition)


def test_a_parameter_is_no_cast_and_no_time_of_day(world: World) -> None:
    message = Message("SELECT :one", "SELECT :one || to_char(now(), 'HH24:MI') || '5'::text || '%'")
    with world.db.connect() as connection:
        for _ in range(2):
            row = message.row(connection, {"one": "%(x)s"})
            assert row is not None
            assert (row[0][:5], row[0][-2:]) == ("%(x)s", "5%")
    assert world.query("SELECT 1 AS one") == [{"one": 1}]


def test_a_cancelled_run_stays_cancelled_whatever_was_prepared(world: World) -> None:
    run_id = world.put(QUEUED)
    with world.db.connect() as connection:
        cancel(connection, run_id)
        again = transitions.request(connection, CANCEL, ACTOR, METRONOME, run_id)
    assert again is not None
    assert (again.moved, again.run.status) == (False, CANCELLED)
