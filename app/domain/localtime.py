"""Local times and what they are in UTC, through the days on which the clocks are changed.

The rules come from the package tzdata, which is pinned, and not from the host: all executors know
the same zones.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

_DAY = timedelta(days=1)


@cache
def zone_names() -> frozenset[str]:
    """The IANA names of all time zones."""
    return frozenset(files("tzdata").joinpath("zones").read_text().split())


def zone_of(name: str) -> ZoneInfo:
    """The time zone of an IANA name, such as ``Europe/Berlin``. Raises ValueError."""
    # only names from this list become paths
    if name not in zone_names():
        raise ValueError("there is no time zone of this name; use one such as Europe/Berlin or UTC")
    return _load(name)


@cache
def _load(name: str) -> ZoneInfo:
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


def local_of(zone: ZoneInfo, moment: datetime) -> datetime:
    """What the clocks of ``zone`` show at ``moment``, without a zone."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def instant_of(zone: ZoneInfo, local: datetime) -> datetime:
    """When the clocks of ``zone`` show ``local``, in UTC.

    The first time where they do so twice. Where they never do, because they are put forward over
    it, the moment at which that happens. Raises OverflowError near the years 1 and 9999.
    """
    found = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if local_of(zone, found) == local:
        return found
    # Inside a gap, fold 0 counts with the offset from before it, and so comes behind the change;
    # fold 1 counts with the one from behind it, and comes before the change.
    before = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return _change(zone, before, found)


def next_change(zone: ZoneInfo, after: datetime, until: datetime) -> datetime | None:
    """The first change of the clocks behind ``after`` and not behind ``until``; None without."""
    offset, low = after.astimezone(zone).utcoffset(), after
    while low < until:
        high = min(low + _DAY, until)  # no zone changes its clocks twice a day
        if high.astimezone(zone).utcoffset() != offset:
            return _change(zone, low, high)
        low = high
    return None


def _change(zone: ZoneInfo, before: datetime, behind: datetime) -> datetime:
    """The moment between the two at which the clocks change, which is a whole second."""
    low, high = int(before.timestamp()), int(behind.timestamp())
    offset = datetime.fromtimestamp(low, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)
