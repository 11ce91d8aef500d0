"""``metronome schedules``, as a process against a served API."""

from __future__ import annotations

import json

from app.db import Database
from app.services import keys
from tests.cli.conftest import Command
from tests.processes import Live
from tests.schedules import publish


def test_schedules_are_listed(metronome: Command, live: Live, db: Database) -> None:
    assert metronome("schedules", "list").stdout == "Nothing that is published has a schedule.\n"
    actor = keys.authenticate(db, live.api_key)
    config = {"cronExpression": "0 9 * * *", "scheduleTimezone": "Asia/Tokyo"}
    ours = publish(db, actor, config)
    other = publish(db, actor, {"scheduledTime": "2099-01-01T00:00:00Z"}, {"intervalSeconds": 5})

    told = metronome("schedules", "list").stdout.splitlines()

    assert told[-2] == f"{ours}  s0"
    assert told[-1].startswith("  0 9 * * * (Asia/Tokyo), next: 20")
    assert any(line.startswith("  every 5 s (UTC), next: ") for line in told)
    single = "  2099-01-01T00:00:00.000000Z (UTC), next: 2099-01-01T00:00:00.000000Z"
    assert single in told
    listed = json.loads(metronome("schedules", "list", "--json", "--metronome", other).stdout)
    assert [one["metronomeId"] for one in listed["data"]] == [other, other]
