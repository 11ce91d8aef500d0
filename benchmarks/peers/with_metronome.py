"""Metronome by the same rules: its executor, and the services that its API calls.

Its steps are function nodes, which call a Python function as the others' steps do. See
with_builtin.py for nodes that only compute.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.config import Settings
from app.db import Database
from app.ids import new_id
from app.services import concurrency, keys, metronomes, starts, transitions
from app.services.notify import DueNotifier
from app.store import versions
from app.store.migrations import upgrade
from benchmarks.peers import side
from benchmarks.peers.work import KINDS, Kind
from benchmarks.server import KEY
from tests.processes import ROOT

# Runs as so many requests would queue them, but in one transaction, as for the others.
_QUEUE = """
INSERT INTO runs (id, organization_id, metronome_id, user_id, version_id, trigger_type, input,
    status, due_at)
SELECT run_id, organization_id, id, user_id, %s, 'manual', '{}', 'queued', clock_timestamp()
FROM metronomes, unnest(%s::text[]) AS run_id
WHERE id = %s
RETURNING runs.id
"""


def _definition(kind: Kind) -> dict[str, Any]:
    nodes = [
        {"id": f"n{number}", "kind": "function", "config": _config(kind, number)}
        for number in range(kind.steps)
    ]
    edges = [
        {"id": f"e{number}", "source": f"n{number - 1}", "target": f"n{number}"}
        for number in range(1, kind.steps)
    ]
    return {"nodes": nodes, "edges": edges}


def _config(kind: Kind, number: int) -> dict[str, Any]:
    if kind.seconds is None:
        return {"functionName": "peer_nothing"}
    payload = {"tag": "{{ trigger.input.tag }}", "number": number, "seconds": kind.seconds}
    return {"functionName": "peer_step", "payload": payload}


def prepare(url: str, define: Callable[[Kind], dict[str, Any]] = _definition) -> None:
    """Migrations, a key, and a workflow of each kind."""
    upgrade(url)
    db = Database(url)
    keys.ensure_bootstrap_key(db, KEY)
    actor = keys.authenticate(db, KEY)
    for name, kind in KINDS.items():
        metronomes.create(db, actor, name=name, definition=define(kind))
    db.close()


def work(url: str, settings: side.Settings, instance: str) -> None:
    """This process becomes ``metronome executor``."""
    values = Settings(database_url=url, home=Path.cwd() / "var", log_level="warning").to_env()
    path = os.pathsep.join((str(ROOT), str(Path(__file__).with_name("functions"))))
    environment = {**os.environ, **values, **settings, "PYTHONPATH": path}
    os.execve(sys.executable, [sys.executable, "-m", "app.cli", "executor"], environment)


class Client:
    """The services, as the API's views call them."""

    def __init__(self, url: str) -> None:
        self._db = Database(url)
        self._actor = keys.authenticate(self._db, KEY)
        self._notifier = DueNotifier(self._db)
        self._sql = self._db.raw(application_name="benchmark")
        self._of: dict[str, str] = {}  # run id to workflow id
        self._ids = dict(self._rows("SELECT name, id FROM metronomes"))

    def _rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self._sql.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall()

    def enqueue(self, kind: str, tags: Sequence[str]) -> list[str]:
        """Each by a call of its own; in one statement where the steps leave no marks."""
        if KINDS[kind].seconds is not None:
            return [self._create(kind, tag) for tag in tags]
        metronome_id = self._ids[kind]
        with self._db.connect() as connection:
            version_id = versions.of_draft(connection, self._actor, metronome_id)
        new = [new_id("run") for _ in tags]
        queued = self._rows(_QUEUE, version_id, new, metronome_id)
        self._notifier.tell()
        return [row[0] for row in queued]

    def _create(self, kind: str, tag: str) -> str:
        wanted = starts.RunRequest(input={"tag": tag})
        run, _ = starts.create(
            self._db, self._actor, self._ids[kind], wanted, tell=self._notifier.tell
        )
        self._of[run.id] = run.metronome_id
        return run.id

    def cancel(self, workflow: str) -> list[int]:
        """What POST .../cancel does; what it would say in ``Cancel-In-Flight``."""
        metronome_id = self._of[workflow]
        done = transitions.cancel(
            self._db, self._actor, metronome_id, workflow, free=concurrency.leave
        )
        return [int(node.removeprefix("n")) for node in done.in_flight]

    def left(self) -> bool:
        """Whether a run is queued or running, or a node of one still in flight."""
        return bool(
            self._rows(
                "SELECT 1 FROM runs WHERE status IN ('queued', 'running')"
                " OR lease_token IS NOT NULL LIMIT 1"
            )
        )

    def finished(self) -> int:
        """The steps that are completed."""
        return int(self._rows("SELECT count(*) FROM steps WHERE status = 'completed'")[0][0])

    def recorded(self, workflow: str) -> list[int]:
        """Those of one run."""
        found = self._rows(
            "SELECT node_id FROM steps WHERE run_id = %s AND status = 'completed'", workflow
        )
        return [int(row[0].removeprefix("n")) for row in found]


PEER = side.Peer(
    package="metronome",
    title="Metronome",
    durable=True,
    settings={
        "default": {"METRONOME_EXECUTOR_THREADS": "8"},
        "eight": {"METRONOME_EXECUTOR_THREADS": "8"},
        "best": {"METRONOME_EXECUTOR_THREADS": "64"},
        "alone": {"METRONOME_EXECUTOR_THREADS": "1"},
    },
    prepare=prepare,
    work=work,
    client=Client,
)

if __name__ == "__main__":
    side.main(PEER)
