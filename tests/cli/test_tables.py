from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from app.cli import tables

NOW = "2030-01-31T12:00:00.000000Z"


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (None, ""),
        (0, "0 ms"),
        (999.4, "999 ms"),
        (999.6, "1.00 s"),
        (61_000, "1m 1s"),
        (3_600_000, "1h"),
        (200_000_000, "2d"),
    ],
)
def test_durations_are_short(ms: float | None, said: str) -> None:
    assert tables.duration(ms) == said


def test_an_age_is_never_negative() -> None:
    now = datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert tables.age("2030-01-31T11:59:00Z", now) == "1m ago"
    assert tables.age("2030-01-31T12:00:09Z", now) == "0s ago"


def test_times_are_utc_with_milliseconds() -> None:
    assert tables.clock("2030-01-31T13:00:00.123456+01:00") == "12:00:00.123"


def test_no_text_can_steer_the_terminal() -> None:
    assert tables.plain("a\x1b[31m\nb\u202ec") == "a\ufffd[31m b\ufffdc"


def step(node: str, status: str, started: str | None, completed: str | None) -> dict[str, Any]:
    times = {"startedAt": started, "completedAt": completed, "createdAt": started or NOW}
    rest = {"nodeType": "delay", "attempt": 1, "durationMs": None, "error": None, "output": None}
    return {"nodeId": node, "status": status, **times, **rest}


def test_the_line_of_the_cancel_stands_before_what_never_started() -> None:
    before, after = "2030-01-31T11:59:59Z", "2030-01-31T12:00:01Z"
    run = {"status": "cancelled", "completedAt": NOW}
    steps = [step("a", "cancelled", before, after), step("b", "cancelled", None, after)]
    shown = StringIO()
    tables.show(Console(file=shown, width=80), tables.steps(steps, run))
    lines = shown.getvalue().splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["a", "cancel", "b"]
    assert "never" in lines[3]
