"""The charts of the comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.charts import Bar, Group, bars
from benchmarks.peers import tables
from benchmarks.peers.peer import OURS
from benchmarks.peers.tables import number
from benchmarks.report import median, percentile

Data = Mapping[str, Any]


def all_of(data: Data) -> dict[str, str]:
    """Name to SVG, of what was measured."""
    makers: dict[str, tuple[str, Callable[[Data], str]]] = {
        "steps": ("throughput", _steps),
        "latency": ("latency", _latency),
        "cancel": ("cancels", _cancel),
        "takeover": ("takeover", _takeover),
        "idle": ("idle", _idle),
    }
    return {name: make(data) for name, (part, make) in makers.items() if data.get(part)}


def _group(data: Data, name: str, made: list[Bar]) -> Group:
    return Group(tables.title(data, name), made, strong=name in OURS)


def _steps(data: Data) -> str:
    profiles = [profile for profile in tables.PROFILES if data["throughput"].get(profile)]
    groups = []
    for name in dict.fromkeys(n for p in profiles for n in data["throughput"][p]):
        made = []
        for place, profile in enumerate(profiles):
            if taken := tables.rates(data, profile, name):
                made.append(Bar(place, median(taken), number(median(taken))))
        groups.append(_group(data, name, made))
    limits = [
        Bar(place, median(taken), number(median(taken)))
        for place, profile in enumerate(profiles)
        if (taken := data.get("limit", {}).get(tables.LIMITS[profile]))
    ]
    if limits:
        groups.append(Group("bare psycopg2", limits))
    return bars(
        "Steps a second, one worker process",
        "durable steps of workflows; of job queues (PgQueuer, Procrastinate, Oban) plain jobs",
        [tables.PROFILES[profile] for profile in profiles],
        groups,
        log=True,
    )


def _latency(data: Data) -> str:
    groups = [
        _group(
            data,
            name,
            [
                Bar(place, value, f"{number(value)} ms")
                for place, value in enumerate((percentile(taken, 50), percentile(taken, 99)))
            ],
        )
        for name, taken in data["latency"].items()
    ]
    note = "milliseconds from the answer to the enqueue to the start of the first step, idle worker"
    return bars("Start latency", note, ["p50", "p99"], groups, log=True)


def _cancel(data: Data) -> str:
    groups = []
    for name, taken in data["cancels"].items():
        count = len(taken["call"])
        late, lost = tables.count_late(taken), tables.count_lost(taken)
        made = [Bar(0, 100 * late / count, f"{100 * late / count:.1f}%")]
        if lost is None:
            made.append(Bar(1, 0, "no record of steps"))
        else:
            made.append(Bar(1, 100 * lost / count, f"{100 * lost / count:.1f}%"))
        groups.append(_group(data, name, made))
    return bars(
        "Broken cancels",
        "percent of the cancels of a workflow in the middle of its steps",
        ["a step started after the answer", "finished work is missing in the record"],
        groups,
    )


def _takeover(data: Data) -> str:
    ways = ("another", "restart")
    groups = []
    for name in dict.fromkeys(n for way in ways for n in data["takeover"][way]):
        found = [data["takeover"][way].get(name) for way in ways]
        made = [
            Bar(place, one["seconds"], tables.gap(one)) for place, one in enumerate(found) if one
        ]
        groups.append(_group(data, name, made))
    return bars(
        "After kill -9 of the worker",
        "seconds until the workflow's next step starts, default settings",
        ["by another worker", "by the worker, restarted at once"],
        groups,
    )


def _idle(data: Data) -> str:
    groups = [
        _group(
            data,
            name,
            [
                Bar(
                    0,
                    one["transactions_a_minute"],
                    f"{one['transactions_a_minute']:,.0f}, {one['rss_mb']:.0f} MB",
                )
            ],
        )
        for name, one in data["idle"].items()
    ]
    note = "transactions a minute, and memory; default settings"
    return bars("An idle worker", note, ["transactions a minute"], groups, log=True)
