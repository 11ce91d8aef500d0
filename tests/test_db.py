"""What every connection is opened with."""

from __future__ import annotations

from contextlib import closing

from sqlalchemy import make_url

from app.db import Database


def test_a_server_that_has_vanished_is_given_up_soon(database_url: str) -> None:
    """Also where something is under way to it, of which keepalives know nothing."""
    db = Database(database_url)
    with closing(db.raw()) as connection, db.connect() as pooled:
        driver = pooled.connection.dbapi_connection
        assert driver is not None
        for options in (connection.info.dsn_parameters, driver.info.dsn_parameters):
            unsent = int(options["tcp_user_timeout"]) / 1000
            silent = int(options["keepalives_idle"]) + int(options["keepalives_interval"]) * int(
                options["keepalives_count"]
            )
            assert 0 < unsent <= 30
            assert 0 < silent <= 30
    db.close()


def test_who_asks_for_another_patience_gets_it(database_url: str) -> None:
    url = make_url(database_url).update_query_dict({"tcp_user_timeout": "60000"})
    db = Database(url.render_as_string(hide_password=False))
    with closing(db.raw()) as connection, db.connect() as pooled:
        driver = pooled.connection.dbapi_connection
        assert driver is not None
        for options in (connection.info.dsn_parameters, driver.info.dsn_parameters):
            assert options["tcp_user_timeout"] == "60000"
            assert options["keepalives_idle"] == "10"
    db.close()
