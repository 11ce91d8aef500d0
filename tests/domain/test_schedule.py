"""What the config of a periodic trigger means, and what becomes of due times that were missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import schedule
from app.domain.schedule import LATEST, PRESETS, SKIP, first_due, next_due, parse, problems, settle

NOW = datetime(2026, 5, 4, 12, 0, 30, tzinfo=UTC)


def _fields(config: dict[str, Any]) -> list[str]:
    return [fault.field for fault in problems(config)]


def test_a_time_of_day_is_one_of_its_zone() -> None:
    config = {"scheduleType": "cron", "cronExpression": "0 9 * * *"}

    assert first_due(config, NOW) == datetime(2026, 5, 5, 9, tzinfo=UTC)
    berlin = {**config, "scheduleTimezone": "Europe/Berlin"}
    assert first_due(berlin, NOW) == datetime(2026, 5, 5, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "zone", "due"),
    [
        ("2026-06-01T08:00:00Z", "Europe/Berlin", datetime(2026, 6, 1, 8)),
        ("2026-06-01T08:00:00+05:30", None, datetime(2026, 6, 1, 2, 30)),
        ("2026-06-01T08:00:00", "Europe/Berlin", datetime(2026, 6, 1, 6)),
        ("2026-06-01T08:00", None, datetime(2026, 6, 1, 8)),
        ("2026-06-01", "America/New_York", datetime(2026, 6, 1, 4)),
        ("2026-10-25T02:30:00", "Europe/Berlin", datetime(2026, 10, 25, 0, 30)),  # comes twice
        ("2027-03-28T02:30:00", "Europe/Berlin", datetime(2027, 3, 28, 1)),  # never comes
    ],
)
def test_a_single_time_is_due_once(written: str, zone: str | None, due: datetime) -> None:
    config = {"scheduleType": "one-time", "scheduledTime": written, "scheduleTimezone": zone}

    found = first_due(config, NOW)

    assert found == due.replace(tzinfo=UTC)
    assert next_due(config, found) is None
    assert first_due(config, found + timedelta(days=1)) is None


def test_intervals_are_counted_from_the_epoch() -> None:
    config = {"scheduleType": "interval", "intervalSeconds": 40}

    due = first_due(config, NOW)

    assert due == datetime(2026, 5, 4, 12, 0, 40, tzinfo=UTC)
    assert due.timestamp() % 40 == 0
    assert next_due(config, due) == due + timedelta(seconds=40)


def test_every_second_is_due_behind_any_moment() -> None:
    config = {"intervalSeconds": 1}

    assert first_due(config, NOW + timedelta(microseconds=999_999)) == NOW + timedelta(seconds=1)
    assert first_due(config, NOW) == NOW + timedelta(seconds=1)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_expressions(name: str) -> None:
    for written in (name, name.upper().replace("-", "_")):
        due = first_due({"scheduleType": "recurring", "schedulePresetId": written}, NOW)
        assert due == first_due({"cronExpression": PRESETS[name]}, NOW)


def test_an_expression_counts_before_a_preset() -> None:
    config = {"scheduleType": "cron", "cronExpression": "5 5 * * *", "schedulePresetId": "custom"}

    assert first_due(config, NOW) == datetime(2026, 5, 5, 5, 5, tzinfo=UTC)


def test_the_type_that_nobody_chose_gives_way_to_what_was_written() -> None:
    # What the SDK makes of PeriodicScheduleTriggerNode("t", cron_expression="0 9 * * *").
    config = {"scheduleType": "one-time", "cronExpression": "0 9 * * *"}

    assert parse(config).kind == "cron"
    both = {**config, "scheduledTime": "2030-01-01T00:00:00Z"}
    assert parse(both).kind == "one-time"


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        ({}, ["config.scheduleType"]),
        ({"scheduleType": "hourly"}, ["config.scheduleType"]),
        ({"scheduleType": 5}, ["config.scheduleType"]),
        ({"scheduleType": "one-time"}, ["config.scheduledTime"]),
        ({"scheduleType": "cron", "scheduledTime": "2030-01-01"}, ["config.cronExpression"]),
        ({"scheduleType": "interval"}, ["config.intervalSeconds"]),
        ({"intervalSeconds": 0}, ["config.intervalSeconds"]),
        ({"intervalSeconds": True}, ["config.intervalSeconds"]),
        ({"intervalSeconds": 1.5}, ["config.intervalSeconds"]),
        ({"intervalSeconds": 10**30}, ["config.intervalSeconds"]),
        ({"scheduledTime": "tomorrow"}, ["config.scheduledTime"]),
        ({"scheduledTime": 5}, ["config.scheduledTime"]),
        ({"scheduledTime": "0001-01-01T00:00:00+14:00"}, ["config.scheduledTime"]),
        ({"scheduledTime": "9999-12-31T23:59:59-14:00"}, ["config.scheduledTime"]),
        ({"cronExpression": "* * * * * *"}, ["config.cronExpression"]),
        ({"cronExpression": ["*"]}, ["config.cronExpression"]),
        ({"schedulePresetId": "sometimes"}, ["config.schedulePresetId"]),
        (
            {
                "intervalSeconds": 5,
                "scheduleTimezone": "Mars",
                "missed": "all",
                "catchUpSeconds": -1,
            },
            ["config.scheduleTimezone", "config.catchUpSeconds", "config.missed"],
        ),
        ({"intervalSeconds": 5, "catchUpSeconds": 32 * 86400}, ["config.catchUpSeconds"]),
        ({"intervalSeconds": 5, "scheduleTimezone": 1, "missed": []}, None),
    ],
)
def test_faults_name_their_field(config: dict[str, Any], fields: list[str] | None) -> None:
    found = _fields(config)

    assert found == (fields or ["config.scheduleTimezone", "config.missed"])
    with pytest.raises(ValueError, match=r"\w"):
        parse(config)


_ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())
)
_NAMES = st.sampled_from(
    [
        "scheduleType",
        "scheduledTime",
        "cronExpression",
        "schedulePresetId",
        "scheduleTimezone",
        "intervalSeconds",
        "catchUpSeconds",
        "missed",
    ]
)


@given(st.dictionaries(_NAMES, _ANYTHING | st.sampled_from(["cron", "interval", "one-time"])))
def test_any_config_is_a_schedule_or_has_faults(config: dict[str, Any]) -> None:
    if problems(config):
        with pytest.raises(ValueError, match=r"\w"):
            parse(config)
    else:
        assert settle(parse(config), NOW, NOW).start == NOW


# -- what was missed


def _all_starts(config: dict[str, Any], due: datetime, now: datetime) -> list[datetime]:
    """The due times that get a run where a scheduler begins at ``now``."""
    plan, starts = parse(config), []
    waiting: datetime | None = due
    while waiting is not None and waiting <= now:
        settled = settle(plan, waiting, now)
        starts += [settled.start] if settled.start else []
        waiting = settled.next
    return starts


_CONFIGS = st.sampled_from(
    [
        {"intervalSeconds": 1},
        {"intervalSeconds": 7},
        {"intervalSeconds": 3600},
        {"cronExpression": "*/5 * * * *"},
        {"cronExpression": "30 1-3 * * *", "scheduleTimezone": "Europe/Berlin"},
    ]
)


@given(
    _CONFIGS,
    st.integers(0, 5_000),
    st.integers(0, 2_000),
    st.sampled_from([LATEST, SKIP]),
    st.datetimes(datetime(2026, 3, 28), datetime(2026, 3, 29), timezones=st.just(UTC)),
)
def test_late_times_get_runs_of_their_own_and_very_late_ones_one_at_the_most(
    plan: dict[str, Any], late: int, catch_up: int, missed: str, start: datetime
) -> None:
    config = {**plan, "catchUpSeconds": catch_up, "missed": missed}
    due = first_due(config, start)
    assert due is not None
    now = due + timedelta(seconds=late, microseconds=5)
    every = [due]
    while (upcoming := next_due(config, every[-1])) is not None and upcoming <= now:
        every.append(upcoming)
    least = schedule.SKIP_SECONDS if missed == SKIP else 0
    horizon = now - timedelta(seconds=max(catch_up, least))
    too_late = [one for one in every if one < horizon]
    in_time = [one for one in every if one >= horizon]

    starts = _all_starts(config, due, now)

    assert starts == (too_late[-1:] if missed == LATEST else []) + in_time


def test_a_moments_delay_skips_nothing() -> None:
    config = {"intervalSeconds": 1, "catchUpSeconds": 0, "missed": "skip"}
    due = NOW - timedelta(seconds=schedule.SKIP_SECONDS)

    assert settle(parse(config), due, NOW).start == due
    assert settle(parse(config), due - timedelta(seconds=1), NOW).start is None


def test_years_of_missed_minutes_are_passed_over_at_once() -> None:
    plan = parse({"cronExpression": "* * * * *", "scheduleTimezone": "Europe/Berlin"})

    settled = settle(plan, datetime(1990, 1, 1, tzinfo=UTC), NOW)

    late = datetime(2026, 5, 4, 11, 59, tzinfo=UTC)
    assert settled == schedule.Settled(late, late + timedelta(minutes=1), passed_over=True)


def test_a_single_time_that_was_missed_is_made_up_for_or_skipped() -> None:
    config = {"scheduledTime": "2026-01-01T00:00:00Z"}
    due = datetime(2026, 1, 1, tzinfo=UTC)

    assert settle(parse(config), due, NOW) == schedule.Settled(due, None)
    skipped = settle(parse({**config, "missed": "skip"}), due, NOW)
    assert skipped == schedule.Settled(None, None, passed_over=True)
