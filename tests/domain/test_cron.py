"""Cron expressions against a calendar that is counted minute by minute, in many zones and years."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import cron
from app.domain.localtime import instant_of, zone_names, zone_of

MINUTE = timedelta(minutes=1)
AROUND = timedelta(hours=30)  # before and behind a change of the clocks

TIMES_OF_DAY = (
    "30 2 * * *",
    "0,15,30,45 1-3 * * *",
    "59 23 * * *",
    "0 0 * * *",
    "5 0,12 * * *",
    "20 0-23/2 * * 0,6",
)
RHYTHMS = ("*/20 * * * *", "0 */2 * * *", "* 2 * * *", "*/7 1-3 * * 0,6", "15 * * * *")

# a zone, and years in which its clocks are changed in whatever strange way
CHANGES = {
    "Europe/Berlin": (2024, 2031),
    "Europe/Dublin": (2024, 2026),
    "America/New_York": (2024, 2031),
    "America/St_Johns": (2024, 2026),
    "America/Havana": (2024, 2026),  # at midnight, and back at one o'clock
    "America/Santiago": (2024, 2026),
    "America/Caracas": (2007, 2016),  # by half an hour, for good
    "America/Nuuk": (2023, 2025),
    "Atlantic/Azores": (2024, 2026),
    "Africa/Casablanca": (2024, 2027),
    "Africa/Cairo": (2024, 2026),
    "Asia/Beirut": (2024, 2026),
    "Asia/Gaza": (2024, 2027),
    "Asia/Pyongyang": (2015, 2018),
    "Australia/Lord_Howe": (2024, 2028),  # by half an hour, twice a year
    "Antarctica/Troll": (2024, 2027),  # by two hours
    "Pacific/Apia": (2011, 2012),  # a whole day was left out
    "Pacific/Chatham": (2024, 2026),
    "Asia/Kathmandu": (2024, 2024),  # never
}


def _changes(zone: ZoneInfo, years: tuple[int, int]) -> list[datetime]:
    """Roughly when the clocks are changed: to the hour."""
    hours = itertools.count()
    start = datetime(years[0], 1, 1, tzinfo=UTC)
    found, before = [], start.astimezone(zone).utcoffset()
    while (moment := start + timedelta(hours=next(hours))).year <= years[1]:
        offset = moment.astimezone(zone).utcoffset()
        if offset != before:
            found.append(moment)
        before = offset
    return found


def _values(field: str, least: int, most: int) -> set[int]:
    found: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        first, _, last = span.partition("-")
        low = least if first == "*" else int(first)
        high = most if first == "*" or (step and not last) else int(last or first)
        found.update(range(low, high + 1, int(step or 1)))
    return found


def _shows(expression: str, local: datetime) -> bool:
    """Whether clocks that show ``local`` match; the expressions here name no day of a month."""
    minute, hour, _, _, weekday = expression.split()
    return (
        local.minute in _values(minute, 0, 59)
        and local.hour in _values(hour, 0, 23)
        and local.isoweekday() % 7 in _values(weekday, 0, 6)
    )


def _due(expression: str, after: datetime, until: datetime, zone: ZoneInfo) -> list[datetime]:
    """What is due, as next_due tells."""
    found, moment = [], cron.next_due(expression, zone, after)
    while moment is not None and moment < until:
        found.append(moment)
        moment = cron.next_due(expression, zone, moment)
    return found


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_due_times_are_those_of_a_calendar_counted_by_minutes(name: str) -> None:
    zone = zone_of(name)
    for change in _changes(zone, CHANGES[name]) or [datetime(2024, 6, 1, tzinfo=UTC)]:
        start, end = change - AROUND, change + AROUND
        minutes = [start + n * MINUTE for n in range(1, int((end - start) / MINUTE))]
        shown = [(moment, moment.astimezone(zone).replace(tzinfo=None)) for moment in minutes]
        for expression in RHYTHMS:
            expected = [moment for moment, local in shown if _shows(expression, local)]
            assert _due(expression, start, end, zone) == expected, (expression, change)
        first_of: dict[datetime, datetime] = {}  # when clocks first show it, or pass over it
        last = start.astimezone(zone).replace(tzinfo=None)
        latest = last
        for moment, local in shown:
            skipped = local - last - MINUTE
            for number in range(1, int(skipped / MINUTE) + 1):
                first_of.setdefault(last + number * MINUTE, moment)
            if local > latest:
                first_of.setdefault(local, moment)
                latest = local
            last = local
        for expression in TIMES_OF_DAY:
            expected = sorted(
                {moment for local, moment in first_of.items() if _shows(expression, local)}
            )
            assert _due(expression, start, end, zone) == expected, (expression, change)


def test_a_time_that_is_skipped_is_due_when_the_clocks_are_put_forward() -> None:
    berlin = zone_of("Europe/Berlin")

    due = cron.next_due("30 2 * * *", berlin, datetime(2026, 3, 28, 12, tzinfo=UTC))

    assert due == datetime(2026, 3, 29, 1, tzinfo=UTC)  # 3 o'clock there
    assert cron.next_due("30 2 * * *", berlin, due) == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)


def test_a_time_that_comes_twice_is_due_once() -> None:
    berlin = zone_of("Europe/Berlin")

    due = cron.next_due("30 2 * * *", berlin, datetime(2026, 10, 24, 12, tzinfo=UTC))

    assert due == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert cron.next_due("30 2 * * *", berlin, due) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "due"),
    [
        ("0 12 L * *", datetime(2026, 1, 31, 12)),
        ("0 12 LW * *", datetime(2026, 1, 30, 12)),
        ("0 12 * * 1#2", datetime(2026, 1, 12, 12)),
        ("0 12 * * 5L", datetime(2026, 1, 30, 12)),
        ("0 12 13 * 5", datetime(2026, 1, 2, 12)),  # the 13th, or a Friday
        ("0 12 * jan,feb mon", datetime(2026, 1, 5, 12)),
        ("0 0 29 2 *", datetime(2028, 2, 29)),
        ("0 12 * * 7", datetime(2026, 1, 4, 12)),
    ],
)
def test_days_are_understood(expression: str, due: datetime) -> None:
    cron.check(expression)

    found = cron.next_due(expression, zone_of("UTC"), datetime(2026, 1, 1, 13, tzinfo=UTC))

    assert found == due.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * *",
        "@daily",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-2 * * * *",
        "*/0 * * * *",
        "* * L-5 * *",
        "1#2/3 * * * *",
        "0 0 30 2 *",  # no such day
        "0 0 */29 2 MON#5",  # that can't be
        "\x00 * * * *",
        "\ud800 * * * *",
        "9" * 5000 + " * * * *",
        "{{ x }} * * * *",
    ],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(cron.CronFault):
        cron.check(expression)


@given(st.text(max_size=40) | st.text("0123456789*/-,#LW ", max_size=30))
def test_whatever_is_written_is_read_or_refused(written: str) -> None:
    try:
        cron.check(written)
    except cron.CronFault:
        return
    due = cron.next_due(written, zone_of("Europe/Berlin"), datetime(2026, 1, 1, tzinfo=UTC))
    assert due is not None


def test_the_end_of_the_calendar_is_the_end() -> None:
    end = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)

    assert cron.next_due("0 0 29 2 *", zone_of("Asia/Tokyo"), end) is None
    assert cron.next_due("* * * * *", zone_of("Asia/Tokyo"), end) is None


def test_every_zone_can_be_read() -> None:
    for name in zone_names():
        assert instant_of(zone_of(name), datetime(2026, 6, 1)).tzinfo is UTC


@pytest.mark.parametrize(
    "name", ["", "Mars/Phobos", "../../etc/passwd", "Europe", "\x00", "a" * 999]
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="there is no time zone"):
        zone_of(name)
