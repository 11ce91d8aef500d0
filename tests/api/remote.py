"""Steps that remote sides work on."""

from __future__ import annotations

import hashlib

from sqlalchemy import text

from app.db import Database
from app.ids import step_id
from tests.api.conftest import Caller

TOKEN = "the-token-of-the-step"


def parked(api: Caller, db: Database, token: str = TOKEN) -> str:
    """The path of a new step that waits for a callback with this token."""
    path = api.new_run()
    _, metronome_id, _, run_id = path.split("/")
    with db.connect() as connection:
        connection.execute(
            text(
                "UPDATE runs SET status = 'running', due_at = 'infinity',"
                " started_at = clock_timestamp() WHERE id = :id"
            ),
            {"id": run_id},
        )
        connection.execute(
            text(
                "INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, attempt, status,"
                " connector, callback_sha256, started_at) VALUES (:run_id, 1, :metronome_id, 'ask',"
                " 'action', 1, 'running', 'action', :sha256, clock_timestamp())"
            ),
            {
                "run_id": run_id,
                "metronome_id": metronome_id,
                "sha256": hashlib.sha256(token.encode()).hexdigest(),
            },
        )
    return f"{path}/steps/{step_id(run_id, 1)}"
