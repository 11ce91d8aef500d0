"""Migrations: each once, up and down, with runs of every kind in the tables."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool

from app.db import Database, normalized
from app.domain.lifecycle import RUN_STATUSES, TERMINAL, WAITING_APPROVAL
from app.domain.roles import ROLES
from app.store import leases, migrations
from app.store.schema import metadata


def test_the_head_is_alembics() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.DIRECTORY))
    assert migrations.head() == ScriptDirectory.from_config(config).get_current_head()


def test_an_empty_database_is_migrated_once(fresh_database_url: str) -> None:
    database = Database(fresh_database_url)
    with database.connect() as connection:
        assert migrations.current(connection) is None
        assert migrations.upgrade(fresh_database_url)
        assert migrations.current(connection) == migrations.head()
        assert not migrations.upgrade(fresh_database_url)
    database.close()


def test_processes_that_migrate_at_the_same_time_do_it_once(fresh_database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        changed = list(pool.map(migrations.upgrade, [fresh_database_url] * 4))
    assert sorted(changed) == [False, False, False, True]


def test_the_migrations_make_the_tables_of_the_schema(db: Database) -> None:
    with db.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        names = set(inspect(connection).get_table_names())
    assert names == {*metadata.tables, "alembic_version"}


class Migrated:
    """A database at any revision."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = create_engine(normalized(url), poolclass=NullPool)

    def go(self, revision: str) -> None:
        """Migrate to a revision, up or down."""
        config = Config()
        config.set_main_option("script_location", str(migrations.DIRECTORY))
        with self.engine.begin() as connection:
            config.attributes["connection"] = connection
            up = (migrations.current(connection) or "") < revision
            (command.upgrade if up else command.downgrade)(config, revision)

    def rows(self, query: str) -> dict[str, list[object]]:
        """The rows of a query by their first column."""
        with self.engine.connect() as connection:
            return {row[0]: list(row[1:]) for row in connection.execute(text(query))}

    def differs(self) -> bool:
        """Whether the tables are others than the schema's."""
        with self.engine.connect() as connection:
            return bool(compare_metadata(MigrationContext.configure(connection), metadata))


@pytest.fixture
def migrated(fresh_database_url: str) -> Iterator[Migrated]:
    """An empty database at the first revision."""
    made = Migrated(fresh_database_url)
    made.go("0001")
    yield made
    made.engine.dispose()


_EARLY = """
INSERT INTO runs (id, organization_id, metronome_id, user_id, version_id, trigger_type, input,
    status, due_at, started_at, completed_at, lease_token, locked_by, locked_at)
VALUES (:id, 'org_a', 'met_a', 'user_a', 'ver_a', 'manual', '{}', :status,
    CAST(:due AS timestamptz), now(), CASE WHEN :ended THEN now() END, CASE WHEN :held THEN 't' END,
    CASE WHEN :held THEN 'e' END, CASE WHEN :held THEN now() END)
"""


def _fill(connection: Connection) -> None:
    """Runs of every status, held and not, as the first revision has them; and a step each."""
    for status in RUN_STATUSES:
        for held in (False, True):
            due = "2999-01-01Z" if held or status in ("queued", "running") else None
            values = {"id": f"run_{status}_{held}", "status": status, "held": held, "due": due}
            ended = status in TERMINAL
            connection.execute(text(_EARLY), values | {"ended": ended})
            connection.execute(
                text(
                    "INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status,"
                    " attempt, started_at)"
                    " VALUES (:id, 1, 'met_a', 'a', 'http', 'running', 1, now())"
                ),
                values,
            )


_DUE = "SELECT id, status, due_at::text, lease_token FROM runs"


def test_runs_of_every_status_outlive_the_way_up_and_down(migrated: Migrated) -> None:
    with migrated.engine.begin() as connection:
        _fill(connection)
    before = migrated.rows(_DUE)
    steps = migrated.rows("SELECT run_id, seq, status, node_id FROM steps")
    waiting = f"run_{WAITING_APPROVAL}_False"

    for _ in range(2):
        migrated.go(migrations.head())
        above = migrated.rows(_DUE)
        assert above == {**before, waiting: [WAITING_APPROVAL, "infinity", None]}
        assert not migrated.differs()
        assert migrated.rows("SELECT run_id, seq, status, node_id FROM steps") == steps
        migrated.go("0001")
        assert migrated.rows(_DUE) == before
        assert migrated.rows("SELECT run_id, seq, status, node_id FROM steps") == steps
    assert migrated.differs()
    migrated.go(migrations.head())

    database = Database(migrated.url)
    with database.raw() as raw:
        assert leases.claim(raw, "executor-1", limit=99, lease=60) == []
        raw.cursor().execute("UPDATE runs SET due_at = now() WHERE id = %s", (waiting,))
        assert [one.id for one in leases.claim(raw, "executor-1", limit=99, lease=60)] == [waiting]
    database.close()


def test_runs_in_depth_outlive_the_way_down_as_plain_ones(migrated: Migrated) -> None:
    migrated.go(migrations.head())
    with migrated.engine.begin() as connection:
        for name, status, more in (
            ("root", "running", "due_at = 'infinity', signalled = true, takeovers = 3"),
            (
                "nested",
                "running",
                "parent_run_id = 'run_root', parent_seq = 1, depth = 1, root_run_id = 'run_root'",
            ),
            ("waits", WAITING_APPROVAL, "due_at = '2999-01-01Z'"),
            ("doubt", "paused", "in_doubt = true, paused_by = 'run_doubt', due_at = NULL"),
        ):
            values = {"id": f"run_{name}", "status": status, "held": False, "ended": False}
            due = None if status == "paused" else "infinity"
            connection.execute(text(_EARLY), values | {"due": due})
            connection.execute(text(f"UPDATE runs SET {more} WHERE id = 'run_{name}'"))
        connection.execute(
            text(
                "INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status, attempt,"
                " completed_at, parent_seq, iteration, unsafe, connector) VALUES"
                " ('run_root', 1, 'm', 'a', 'x', 'completed', 1, now(), 1, 2, true, 'c')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO outbox (id, organization_id, metronome_id, run_id, seq, node_id,"
                " connector, event) VALUES ('out_1', 'o', 'm', 'run_root', 1, 'a', 'c', 'e')"
            )
        )
    kept = {
        "run_root": ["running", "infinity", None],
        "run_nested": ["running", "infinity", None],
        "run_waits": [WAITING_APPROVAL, None, None],
        "run_doubt": ["paused", None, None],
    }
    migrated.go("0001")
    assert migrated.rows(_DUE) == kept
    migrated.go(migrations.head())
    assert not migrated.differs()
    assert migrated.rows(_DUE) == {**kept, "run_waits": [WAITING_APPROVAL, "infinity", None]}
    columns = "id, signalled, in_doubt, paused_by, depth, takeovers, base_seq"
    plain = [False, False, None, 0, 0, 0]
    assert set(map(tuple, migrated.rows(f"SELECT {columns} FROM runs").values())) == {tuple(plain)}


def test_without_roles_only_the_keys_of_admins_stay_valid(migrated: Migrated) -> None:
    migrated.go(migrations.head())
    with migrated.engine.begin() as connection:
        for role in ROLES:
            connection.execute(
                text(
                    "INSERT INTO api_keys (id, name, prefix, sha256, user_id, organization_id,"
                    " role) VALUES (:role, 'a', '', CAST(:role AS bytea), 'user_a', 'org_a', :role)"
                ),
                {"role": role},
            )
    migrated.go("0002")
    valid = migrated.rows("SELECT id FROM api_keys WHERE revoked_at IS NULL")
    assert list(valid) == ["admin"]
    migrated.go(migrations.head())
    assert migrated.rows("SELECT id, role FROM api_keys WHERE revoked_at IS NULL") == {
        "admin": ["admin"]
    }


def test_a_key_without_a_role_is_refused(migrated: Migrated) -> None:
    migrated.go(migrations.head())
    forgotten = text(
        "INSERT INTO api_keys (id, name, prefix, sha256, user_id, organization_id)"
        " VALUES ('key_1', 'a', 'b', '', 'user_a', 'org_a')"
    )
    with pytest.raises(IntegrityError), migrated.engine.begin() as connection:
        connection.execute(forgotten)


_VERSIONS = """
INSERT INTO versions (id, organization_id, metronome_id, version, status, definition, revision,
    node_count, edge_count)
VALUES ('ver_a', 'org_a', 'met_a', 0, 'saved', '{"nodes": [2, 2]}', 2, 2, 0);
INSERT INTO version_revisions (version_id, revision, definition)
VALUES ('ver_a', 0, '{"nodes": [0]}'), ('ver_a', 1, '{"nodes": []}')
"""
_DEFINITIONS = """
SELECT r.id, v.definition, v.node_count FROM runs r JOIN versions v ON v.id = r.version_id
"""


def test_runs_keep_their_definition_on_the_way_down(migrated: Migrated) -> None:
    for turn in range(2):
        migrated.go(migrations.head())
        with migrated.engine.begin() as connection:
            connection.execute(text("DELETE FROM versions WHERE id = 'ver_a'"))
            connection.execute(text(_VERSIONS))
            for number, revision in enumerate((0, 0, 2)):
                values = {"id": f"run_{turn}{number}", "status": "queued", "due": "2999-01-01Z"}
                connection.execute(text(_EARLY), values | {"ended": False, "held": False})
                connection.execute(
                    text("UPDATE runs SET version_revision = :revision WHERE id = :id"),
                    {"revision": revision, "id": values["id"]},
                )
        migrated.go("0002")
        found = migrated.rows(_DEFINITIONS)
        assert found[f"run_{turn}0"] == [{"nodes": [0]}, 1]
        assert found[f"run_{turn}1"] == found[f"run_{turn}0"]
        assert found[f"run_{turn}2"] == [{"nodes": [2, 2]}, 2]
    # only what is used is kept, with a number of its own
    numbers = migrated.rows("SELECT version::text FROM versions")
    assert numbers == {str(number): [] for number in range(3)}
