"""The tables of the comparison, every cell as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.peer import OURS
from benchmarks.report import median, percentile

PROFILES = {"eight": "8 at a time", "best": "best", "alone": "1 at a time"}
LIMITS = {"eight": "8", "best": "32", "alone": "1"}  # threads of bare psycopg2

Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; ``picture`` names the chart that goes with it."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    picture: str = ""


def all_of(data: Data) -> list[Table]:
    """Those of the parts that were measured."""
    made = []
    makers: dict[str, Callable[[Data], Table]] = {
        "throughput": _throughput,
        "latency": _latency,
        "cancels": _cancels,
        "takeover": _takeover,
        "idle": _idle,
    }
    for part, make in makers.items():
        if data.get(part):
            made.append(make(data))
    made.append(_settings(data))
    if data.get("failures"):
        rows = [
            (part, title(data, name), reason)
            for part, failed in data["failures"].items()
            for name, reason in failed.items()
        ]
        made.append(Table("What could not be measured", ("part", "", "why"), rows))
    return made


def title(data: Data, name: str) -> str:
    """How it is called."""
    return str(data["peers"].get(name, {}).get("title", name))


def number(value: float) -> str:
    """With as many digits as can be trusted."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def rates(data: Data, profile: str, name: str) -> list[float]:
    """Steps a second of each round."""
    found: list[float] = data["throughput"].get(profile, {}).get(name, [])
    return found


def times(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """How many times theirs ours is, the median of the rounds; None where one is missing."""
    pairs = list(zip(ours, theirs, strict=False))
    return median([one / other for one, other in pairs]) if pairs else None


def _times(data: Data, profile: str, theirs: Sequence[float]) -> str:
    found = [times(rates(data, profile, name), theirs) for name in OURS]
    return " / ".join(f"{value:.2f}x" for value in found if value is not None)


def _throughput(data: Data) -> Table:
    profiles = [profile for profile in PROFILES if data["throughput"].get(profile)]
    names = list(dict.fromkeys(n for p in profiles for n in data["throughput"][p]))
    rows = [_rates_row(data, name, profiles) for name in names]
    limits = data.get("limit", {})
    for threads, taken in limits.items():
        row = [f"bare psycopg2, {threads} thread{'s' if threads != '1' else ''}", "steps"]
        for profile in profiles:
            if LIMITS[profile] == threads:
                row += [number(median(taken)), _times(data, profile, taken)]
            else:
                row += ["", ""]
        rows.append([*row, ""])
    rounds = max(len(rates(data, p, n)) for p in profiles for n in names)
    heads = ["", "counted"]
    for profile in profiles:
        heads += [f"{PROFILES[profile]}: a second", "Metronome"]
    return Table(
        f"Steps a second of one worker process, medians of {rounds}; how many times as many"
        " Metronome does, of function / of built-in nodes (workflows of 10 steps that do nothing,"
        " or so many jobs)",
        [*heads, "workflows a second, best"],
        rows,
        "steps",
    )


def _rates_row(data: Data, name: str, profiles: Sequence[str]) -> list[str]:
    durable = data["peers"][name]["durable"]
    row = [title(data, name), "steps" if durable else "jobs"]
    for profile in profiles:
        taken = rates(data, profile, name)
        row.append(number(median(taken)) if taken else "failed")
        row.append("" if name in OURS else _times(data, profile, taken))
    best = max((median(taken) for p in profiles if (taken := rates(data, p, name))), default=0)
    return [*row, number(best / 10) if durable else ""]


def _latency(data: Data) -> Table:
    rows = [
        (
            title(data, name),
            str(len(taken)),
            number(percentile(taken, 50)),
            number(percentile(taken, 99)),
        )
        for name, taken in data["latency"].items()
    ]
    return Table(
        "Start latency: from the answer to the enqueue to the first line of the step, idle worker",
        ("", "starts", "p50 ms", "p99 ms"),
        rows,
        "latency",
    )


def _cancels(data: Data) -> Table:
    rows = []
    for name, taken in data["cancels"].items():
        count = len(taken["call"])
        late, lost = count_late(taken), count_lost(taken)
        call, stop = taken["call"], taken["stop"]
        rows.append(
            (
                title(data, name),
                f"{number(percentile(call, 50))} / {number(percentile(call, 99))}",
                f"{number(percentile(stop, 50))} / {number(percentile(stop, 99))}",
                f"{late} of {count}{_named(taken)}",
                number(percentile(taken["beyond"], 99)),
                f"{sum(taken['cut'])} of {count}",
                "no record of steps" if lost is None else f"{lost} of {count}",
            )
        )
    return Table(
        "Cancels of workflows whose steps take 20 ms",
        (
            "",
            "call, p50 / p99 ms",
            "answer to stop, p50 / p99 ms",
            "a step started after the answer",
            "went on behind the step in flight, p99 ms",
            "step in flight cut off",
            "finished work that is not in the record",
        ),
        rows,
        "cancel",
    )


def _named(taken: Mapping[str, Sequence[Any]]) -> str:
    count = sum(number > 0 for number in taken["named"])
    return f" ({count} more it named)" if count else ""


def count_late(taken: Mapping[str, Sequence[Any]]) -> int:
    """Cancels behind whose answer a step started."""
    return sum(number > 0 for number in taken["late"])


def count_lost(taken: Mapping[str, Sequence[Any]]) -> int | None:
    """Cancels that lost a step which had finished; None where steps are not recorded."""
    if all(one is None for one in taken["lost"]):
        return None
    return sum(bool(one) for one in taken["lost"])


def gap(one: Mapping[str, Any]) -> str:
    """How long a workflow stood still."""
    if one["seconds"] is None:
        return f"not within {one['patience']:g} s"
    return f"{number(one['seconds'])} s"


def _takeover(data: Data) -> Table:
    rows = []
    for name in dict.fromkeys([*data["takeover"]["another"], *data["takeover"]["restart"]]):
        row = [title(data, name)]
        for way in ("another", "restart"):
            one = data["takeover"][way].get(name)
            again = "" if one is None or one["again"] is None else str(one["again"])
            row += ["failed" if one is None else gap(one), again]
        rows.append(row)
    return Table(
        "kill -9 of the worker, default settings: until the workflow's next step starts",
        (
            "",
            "by another worker",
            "finished steps that ran again (of 3)",
            "by the worker, restarted at once",
            "finished steps that ran again (of 3)",
        ),
        rows,
        "takeover",
    )


def _idle(data: Data) -> Table:
    rows = [
        (
            title(data, name),
            f"{one['cpu_percent']:.2f}",
            f"{one['transactions_a_minute']:,.0f}",
            f"{one['rss_mb']:.0f}",
        )
        for name, one in data["idle"].items()
    ]
    return Table(
        "An idle worker, default settings",
        ("", "% of a core", "transactions a minute", "memory, MB"),
        rows,
        "idle",
    )


def _settings(data: Data) -> Table:
    rows = []
    for name, told in data["peers"].items():
        if "unavailable" in told:
            rows.append((name, "", "", f"not available: {told['unavailable']}", "", "", ""))
            continue
        shown = [_setting(told["settings"][name]) for name in ("default", "eight", "best", "alone")]
        rows.append((told["title"], told["version"], told["python"], *shown))
    return Table(
        "Versions and settings",
        ("", "version", "Python", "default", "8 at a time", "best", "1 at a time"),
        rows,
    )


def _setting(settings: Mapping[str, Any]) -> str:
    shown = {name.removeprefix("METRONOME_").lower(): value for name, value in settings.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())
