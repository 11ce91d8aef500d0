"""When a cron expression is due, in a time zone.

cronsim reads the expression and counts in local times; what these are in UTC is decided here. As
Debian's cron does, two sorts of expressions are told apart:

- One whose minute and hour are both fixed (``30 2 * * *``, also lists, ranges and steps of these)
  means a time of day. One that the clocks skip is due at the moment when they are put forward; one
  that they show twice is due the first time.
- One whose minute or hour begins with a star (``*/15 * * * *``, ``0 * * * *``) means a rhythm. It
  is due whenever the clocks show it: never in an hour that is skipped, twice in one that is
  repeated.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from app.domain.localtime import instant_of, local_of, next_change

MAX_LENGTH = 200  # characters
_FIELDS = 5
_SECOND = timedelta(seconds=1)
_ANY_DAY = datetime(2000, 1, 1)  # from where it is found out whether a time comes


class CronFault(ValueError):
    """The expression can't be read, or is never due."""


def check(expression: str) -> None:
    """Raises CronFault, with a text that says what is wrong."""
    if len(expression) > MAX_LENGTH:
        raise CronFault(f"is longer than {MAX_LENGTH} characters")
    given = len(expression.split())
    if given != _FIELDS:
        raise CronFault(
            f"has {given} fields; it must have 5: minute, hour, day of month, month, day of week"
        )
    try:
        found = _local_after(expression, _ANY_DAY)
    except CronSimError as error:
        raise CronFault(f"can't be read: {error}") from None
    except (ValueError, AssertionError):
        raise CronFault("can't be read") from None
    if found is None:
        raise CronFault("is never due: there is no such day")


def next_due(expression: str, zone: ZoneInfo, after: datetime) -> datetime | None:
    """The first time behind ``after`` at which a checked expression is due, in UTC.

    None where there is none in the next fifty years.
    """
    try:
        if _is_rhythm(expression):
            return _next_of_rhythm(expression, zone, after)
        return _next_of_day(expression, zone, after)
    except OverflowError:  # the end of the calendar
        return None


def _is_rhythm(expression: str) -> bool:
    minute, hour = expression.split()[:2]
    return minute.startswith("*") or hour.startswith("*")


def _next_of_day(expression: str, zone: ZoneInfo, after: datetime) -> datetime | None:
    local: datetime | None = local_of(zone, after)
    while local is not None:
        local = _local_after(expression, local)
        # Not behind ``after``: in a repeated hour this was due in its first pass; in a skipped one
        # it is due when another time of that hour was.
        if local is not None and (due := instant_of(zone, local)) > after:
            return due
    return None


def _next_of_rhythm(expression: str, zone: ZoneInfo, after: datetime) -> datetime | None:
    local, since = local_of(zone, after), after
    while True:
        offset = since.astimezone(zone).utcoffset() or timedelta(0)
        found = _local_after(expression, local)
        if found is None:
            return None
        due = (found - offset).replace(tzinfo=UTC)
        change = next_change(zone, since, due)
        if change is None:
            return due
        since, local = change, local_of(zone, change) - _SECOND


def _local_after(expression: str, local: datetime) -> datetime | None:
    # A generator's end would be lost inside of a generator: this asks for one time only.
    return next(CronSim(expression, local), None)
