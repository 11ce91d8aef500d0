from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from app.db import Database
from app.store import migrations
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
