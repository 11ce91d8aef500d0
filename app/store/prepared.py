"""Statements in one message, planned once for each connection.

Such a message is one round trip and one transaction. To plan statements as long as those on trees
takes several times as long as to run them, so they are prepared by the first message that needs
them on a connection. Their plans serve tables of any size: each row is looked up by an index, even
where a plan is made while the tables are empty, and would read them from end to end.

Through a pooler that changes servers between transactions nothing stays prepared. Then, and where
a name turns out to be taken, the same statements are sent as they are. A name holds a digest of
what is prepared, so it can't stand for the statement of another version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from psycopg2.errors import DuplicatePreparedStatement, InvalidSqlStatementName
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app import db

_PARAMETER = re.compile(r"(?<![:\w]):([a-z][a-z0-9_]*)\b")
_NEVER = "never"  # among what is prepared on a connection: nothing stays
PLANNER = "; ".join(
    f"SET LOCAL {setting}"
    for setting in (
        "plan_cache_mode = force_generic_plan",
        "enable_seqscan = off",
        "enable_bitmapscan = off",
        "enable_hashjoin = off",
        "enable_mergejoin = off",
    )
)


class Message:
    """SQL statements with parameters such as ``:run_id``, which are text if ``types`` say nothing.

    They are one transaction without a BEGIN. ``settings`` is a SET LOCAL that holds for them.
    """

    def __init__(self, *statements: str, settings: str = "", **types: str) -> None:
        self._digest = sha256("\n".join(statements).encode()).hexdigest()[:16]
        prepare, execute = [], []
        for number, statement in enumerate(statements):
            names = list(dict.fromkeys(_PARAMETER.findall(statement)))
            name = f"metronome_{self._digest}_{number}"
            kinds = ", ".join(types.get(one, "text") for one in names)
            numbered = _numbered(statement, names)
            prepare.append(f"PREPARE {name} ({kinds}) AS {numbered.replace('%', '%%')}")
            execute.append(f"EXECUTE {name} ({', '.join(f'%({one})s' for one in names)})")
        before = [settings] if settings else []
        self.again = "; ".join([*before, PLANNER, *execute])
        self.first = "; ".join([*prepare, self.again])
        plain = [_PARAMETER.sub(r"%(\1)s", one.replace("%", "%%")) for one in statements]
        self._plain = "; ".join([*before, *plain])

    def row(self, connection: Connection, values: Mapping[str, Any]) -> Sequence[Any] | None:
        """Send it; the one row that the last statement answers, or None where it answers none."""
        found = self.rows(connection, values)
        if len(found) > 1:
            raise AssertionError(f"{len(found)} rows where there can be one")
        return found[0] if found else None

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Send it; the rows that the last statement answers."""
        prepared: set[str] = connection.info.setdefault("prepared", set())
        if _NEVER not in prepared:
            known = self._digest in prepared
            prepared.add(self._digest)  # even if it fails: what is prepared is not rolled back
            try:
                return db.rows(connection, self.again if known else self.first, values)
            except DBAPIError as error:
                if not isinstance(error.orig, DuplicatePreparedStatement | InvalidSqlStatementName):
                    raise
            prepared.add(_NEVER)
        return db.rows(connection, self._plain, values)


def _numbered(statement: str, names: Sequence[str]) -> str:
    """The statement with ``$1`` for the first of the names, and so on."""
    return _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement)
