"""Whether this process can serve: its database, the schema, and somebody who executes runs."""

from __future__ import annotations

import logging

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from app.db import Database
from app.domain.errors import Unavailable
from app.store import executors, migrations

log = logging.getLogger(__name__)

OK = "ok"


def check(db: Database) -> dict[str, str]:
    """What was checked, and that it is "ok".

    Raises Unavailable, whose details tell what is missing, and what to do about it.
    """
    checks = {"database": OK, "schema": OK, "executor": OK}
    try:
        checks |= db.read(_look)
    except SQLAlchemyError as error:
        log.warning("the database can't be reached", extra={"error": str(error)})
        checks = {"database": "can't be reached"}
    missing = [f"{name} {message}" for name, message in checks.items() if message != OK]
    if missing:
        raise Unavailable(f"not ready: {'; '.join(missing)}", code="not_ready", details=checks)
    return checks


def _look(connection: Connection) -> dict[str, str]:
    found, needed = migrations.current(connection), migrations.head()
    if found is None:
        return {"schema": "is missing: run `metronome migrate`", "executor": "is unknown"}
    if found < needed:
        schema = f"is at revision {found}, {needed} is needed: run `metronome migrate`"
    else:
        schema = OK
    alive = executors.alive(connection)
    return {"schema": schema, "executor": OK if alive else "was not seen lately: start one"}
