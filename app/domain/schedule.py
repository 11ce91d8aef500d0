"""The config of a ``periodic`` trigger: when it starts runs, and what becomes of missed times.

Pure: the time is always given, and every time that is answered is in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from app.domain import cron
from app.domain.localtime import instant_of, zone_of

TRIGGER_TYPE: Final = "periodic"
ONE_TIME, CRON, INTERVAL = "one-time", "cron", "interval"
_TYPES: Final[Mapping[str, str]] = {
    "one-time": ONE_TIME,
    "one_time": ONE_TIME,
    "once": ONE_TIME,
    "cron": CRON,
    "recurring": CRON,
    "interval": INTERVAL,
}
PRESETS: Final[Mapping[str, str]] = {
    "every-minute": "* * * * *",
    "every-5-minutes": "*/5 * * * *",
    "every-15-minutes": "*/15 * * * *",
    "every-30-minutes": "*/30 * * * *",
    "hourly": "0 * * * *",
    "daily": "0 9 * * *",
    "weekdays": "0 9 * * 1-5",
    "weekly": "0 9 * * 1",
    "monthly": "0 9 1 * *",
    "yearly": "0 9 1 1 *",
}
LATEST, SKIP = "latest", "skip"
CATCH_UP_SECONDS: Final = 60
SKIP_SECONDS: Final = 15  # of the catch-up at least, where what is missed gets no run
MAX_CATCH_UP_SECONDS: Final = 31 * 24 * 3600
MAX_INTERVAL_SECONDS: Final = 366 * 24 * 3600
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class ScheduleProblem:
    """One fault of a config; ``field`` is a path such as ``config.cronExpression``."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """A config that was read; of ``at``, ``expression`` and ``seconds`` one is given."""

    kind: str  # one-time, cron or interval
    zone: ZoneInfo
    catch_up: timedelta  # how late a due time may get a run of its own
    missed: str  # what gets a run of the due times that are later than that: latest, or skip
    at: datetime | None = None
    expression: str | None = None
    seconds: int | None = None

    def next_due(self, after: datetime) -> datetime | None:
        """The first due time behind ``after``; None where there is none any more."""
        if self.at is not None:
            return self.at if self.at > after else None
        if self.expression is not None:
            return cron.next_due(self.expression, self.zone, after)
        seconds = self.seconds or MAX_INTERVAL_SECONDS
        try:
            return datetime.fromtimestamp((after.timestamp() // seconds + 1) * seconds, UTC)
        except (OverflowError, ValueError):  # the end of the calendar
            return None

    def latest_due(self, due: datetime, until: datetime) -> datetime:
        """The last due time that is not behind ``until``; ``due`` is an earlier one, or the same.

        Found by halving, since there may be millions of them.
        """
        last, high = due, until
        while high - last >= _SECOND:
            middle = last + (high - last) / 2
            found = self.next_due(middle)
            if found is not None and found <= until:
                last = found
            else:
                high = middle
        # those less than a second apart from what was looked at
        while (found := self.next_due(last)) is not None and found <= until:
            last = found
        return last


@dataclass(frozen=True, slots=True)
class Settled:
    """What is to be done about a due time: ``start`` a run for that time, then wait for ``next``.

    ``start`` is None where nothing is to be started; ``passed_over`` says that due times get no
    run, because they are too late.
    """

    start: datetime | None
    next: datetime | None
    passed_over: bool = False


class _Faults:
    """What has been found so far."""

    def __init__(self) -> None:
        self.found: list[ScheduleProblem] = []

    def add(self, name: str, message: str) -> None:
        """Note a fault of a field."""
        self.found.append(ScheduleProblem(f"config.{name}", f"{name} {message}."))

    def text(self, config: Mapping[str, Any], name: str) -> str | None:
        """A field that is a text; None where it is absent, or empty, or wrong."""
        value = config.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            self.add(name, "must be a text")
            return None
        return value.strip() or None

    def whole(
        self, config: Mapping[str, Any], name: str, least: int, most: int, default: int | None
    ) -> int | None:
        """A field that is a whole number."""
        value = config.get(name)
        if value is None or value == "":
            return default
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        self.add(name, f"must be a whole number from {least:,} to {most:,}")
        return default


def problems(config: Mapping[str, Any]) -> list[ScheduleProblem]:
    """What keeps a periodic trigger from being published; [] where nothing does."""
    faults = _Faults()
    _read(config, faults)
    return faults.found


def parse(config: Mapping[str, Any]) -> Schedule:
    """The schedule of a config. Raises ValueError, with all its faults, where it has some."""
    faults = _Faults()
    found = _read(config, faults)
    if found is None or faults.found:
        raise ValueError(" ".join(fault.message for fault in faults.found))
    return found


def first_due(config: Mapping[str, Any], now: datetime) -> datetime | None:
    """When a schedule that is published (or goes on) at ``now`` is due first; None for never.

    What was due before is not made up for. Raises ValueError where the config has faults.
    """
    return parse(config).next_due(now)


def next_due(config: Mapping[str, Any], after: datetime) -> datetime | None:
    """The first due time behind ``after``. Raises ValueError where the config has faults."""
    return parse(config).next_due(after)


def settle(schedule: Schedule, due: datetime, now: datetime) -> Settled:
    """What is to be done at ``now`` about the due time ``due``, which is not behind it.

    A due time that is not later than ``catch_up`` gets a run of its own. Of those that are, the
    latest one gets a run, or none does; the next one to look at may be due already.
    """
    horizon = now - schedule.catch_up
    if due >= horizon:
        return Settled(due, schedule.next_due(due))
    last = schedule.latest_due(due, horizon - timedelta(microseconds=1))
    upcoming = schedule.next_due(last)
    if schedule.missed == SKIP:
        return Settled(None, upcoming, passed_over=True)
    return Settled(last, upcoming, passed_over=last > due)


def _read(config: Mapping[str, Any], faults: _Faults) -> Schedule | None:
    """The schedule, as far as it can be read; None where its times can't."""
    kind = _kind(config, faults)
    zone = zone_of("UTC")
    if name := faults.text(config, "scheduleTimezone"):
        try:
            zone = zone_of(name)
        except ValueError as error:
            faults.add("scheduleTimezone", f"is not valid: {error}")
    catch_up = faults.whole(
        config, "catchUpSeconds", 0, MAX_CATCH_UP_SECONDS, default=CATCH_UP_SECONDS
    )
    missed = faults.text(config, "missed") or LATEST
    if missed not in (LATEST, SKIP):
        faults.add("missed", f"must be {LATEST} or {SKIP}")
    if kind is None:
        return None
    times = _READERS[kind](config, zone, faults)
    # Every run begins a little behind its due time: a moment's delay is to skip none.
    late = timedelta(seconds=max(catch_up or 0, SKIP_SECONDS if missed == SKIP else 0))
    return None if times is None else Schedule(kind, zone, late, missed, **times)


def _kind(config: Mapping[str, Any], faults: _Faults) -> str | None:
    """What sort of schedule it is, from its type and from what is given."""
    before = len(faults.found)
    written = faults.text(config, "scheduleType")
    if len(faults.found) > before:
        return None
    if written is not None and written not in _TYPES:
        faults.add("scheduleType", f"must be one of {', '.join(_TYPES)}")
        return None
    given = [
        kind
        for name, kind in (
            ("scheduledTime", ONE_TIME),
            ("cronExpression", CRON),
            ("schedulePresetId", CRON),
            ("intervalSeconds", INTERVAL),
        )
        if config.get(name) not in (None, "")
    ]
    kind = _TYPES[written] if written else None
    # The SDK writes one-time where its caller says nothing, whatever else is given.
    if kind is None or (kind == ONE_TIME and given and ONE_TIME not in given):
        kind = given[0] if given else kind
    if kind is None:
        faults.add("scheduleType", "is missing")
    return kind


def _one_time(config: Mapping[str, Any], zone: ZoneInfo, faults: _Faults) -> dict[str, Any] | None:
    written = config.get("scheduledTime")
    if written in (None, ""):
        faults.add("scheduledTime", "is missing")
        return None
    try:
        moment = datetime.fromisoformat(written)
        at = instant_of(zone, moment) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        faults.add("scheduledTime", "must be a time in ISO 8601, such as 2030-01-31T08:00:00Z")
        return None
    return {"at": at}


def _cron(config: Mapping[str, Any], zone: ZoneInfo, faults: _Faults) -> dict[str, Any] | None:
    before = len(faults.found)
    expression = faults.text(config, "cronExpression")
    preset = faults.text(config, "schedulePresetId")
    if len(faults.found) > before:
        return None
    if expression is None and preset is not None:
        expression = PRESETS.get(preset.lower().replace("_", "-"))
        if expression is None:
            known = ", ".join(PRESETS)
            faults.add("schedulePresetId", f"is unknown, and there is no cronExpression: {known}")
            return None
    if expression is None:
        faults.add("cronExpression", "is missing")
        return None
    try:
        cron.check(expression)
    except cron.CronFault as error:
        faults.add("cronExpression", str(error))
        return None
    return {"expression": expression}


def _interval(config: Mapping[str, Any], zone: ZoneInfo, faults: _Faults) -> dict[str, Any] | None:
    before = len(faults.found)
    seconds = faults.whole(config, "intervalSeconds", 1, MAX_INTERVAL_SECONDS, default=None)
    if seconds is None and len(faults.found) == before:
        faults.add("intervalSeconds", "is missing")
    return None if seconds is None else {"seconds": seconds}


_READERS: Final[
    Mapping[str, Callable[[Mapping[str, Any], ZoneInfo, _Faults], dict[str, Any] | None]]
] = {ONE_TIME: _one_time, CRON: _cron, INTERVAL: _interval}
