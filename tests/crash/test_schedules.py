"""A minute of a schedule of every second: an executor is killed, and PostgreSQL is restarted."""

from __future__ import annotations

from benchmarks.schedules import LEASE, play
from benchmarks.server import server


def test_each_due_time_has_one_run_whatever_dies() -> None:
    changes = {"lease_seconds": LEASE, "poll_seconds": 0.2}
    with server(own=True) as postgres, postgres.bench(**changes) as bench:
        played = play(postgres, bench, count=60)

        assert played.due >= 60
        assert played.wrong == {}
        assert (played.unrecorded, played.others) == (0, 0)
        assert bench.sql("SELECT matched_count FROM trigger_totals") == [(played.due,)]
        assert [one.logs() for one in bench.processes if one.returncode is not None] == []
