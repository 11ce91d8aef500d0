"""What Metronome wants to be, beside what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks import report
from benchmarks.peers import tables
from benchmarks.peers.peer import BUILTIN, OURS
from benchmarks.report import Figure, median, percentile

TIMES = {
    "best": {"dbos": 16.0, "absurd": 5.0, "pgqueuer": 1.2},
    "eight": {"dbos": 6.0, "absurd": 2.0},
}
BARE = {"best": 2.5, "eight": 1.2}
ALONE = 1500.0  # steps a second
BEYOND_MS = 5.0
TAKEOVER_S = 3.0
CPU_PERCENT, TRANSACTIONS, RSS_MB = 0.5, 20.0, 80.0

Data = Mapping[str, Any]


def all_of(data: Data) -> list[Figure]:
    """The figures of the parts that were measured."""
    return [
        *(_rates(data) if data.get("throughput") else ()),
        *(_latency(data["latency"]) if data.get("latency") else ()),
        *(_cancels(data["cancels"]) if data.get("cancels") else ()),
        *(_takeover(data["takeover"]) if data.get("takeover") else ()),
        *(_idle(data["idle"]) if data.get("idle") else ()),
    ]


def _rates(data: Data) -> list[Figure]:
    figures = []
    for name in OURS:
        nodes = "built-in nodes" if name == BUILTIN else "function nodes"
        for profile, wanted in TIMES.items():
            ours, told = tables.rates(data, profile, name), tables.PROFILES[profile]
            for other, target in wanted.items():
                ratio = tables.times(ours, tables.rates(data, profile, other))
                if ratio is not None:
                    against = f"steps/s, {nodes}, {told}, against {tables.title(data, other)}"
                    figures.append(report.at_least(against, ratio, target))
            threads = tables.LIMITS[profile]
            ratio = tables.times(ours, data.get("limit", {}).get(threads, ()))
            if ratio is not None:
                against = f"steps/s, {nodes}, {told}, against bare psycopg2, {threads} threads"
                figures.append(report.at_least(against, ratio, BARE[profile]))
        if alone := tables.rates(data, "alone", name):
            figures.append(report.at_least(f"steps/s, {nodes}, 1 at a time", median(alone), ALONE))
    return figures


def _latency(taken: Mapping[str, list[float]]) -> list[Figure]:
    p50 = {name: percentile(one, 50) for name, one in taken.items()}
    ours = p50.pop("metronome", None)
    if ours is None or not p50:
        return []
    fastest = min(p50.values())
    return [report.at_most("start latency, p50, of the fastest peer's", ours / fastest, 1.0)]


def _cancels(taken: Mapping[str, Mapping[str, list[Any]]]) -> list[Figure]:
    if "metronome" not in taken:
        return []
    ours = taken["metronome"]
    return [
        report.at_most("cancels with a late start", tables.count_late(ours), 0),
        report.at_most("cancels that lost finished work", tables.count_lost(ours) or 0, 0),
        report.at_most(
            "from the end of the step in flight to the stop, p99",
            percentile(ours["beyond"], 99),
            BEYOND_MS,
            " ms",
        ),
    ]


def _takeover(taken: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    one = taken["another"].get("metronome")
    if one is None or one["seconds"] is None:
        return []
    return [
        report.at_most("take-over by another executor", one["seconds"], TAKEOVER_S, " s"),
        report.at_most("finished steps that ran again", one["again"], 0),
    ]


def _idle(taken: Mapping[str, Mapping[str, float]]) -> list[Figure]:
    if "metronome" not in taken:
        return []
    one = taken["metronome"]
    return [
        report.at_most("idle, CPU", one["cpu_percent"], CPU_PERCENT, "% of a core"),
        report.at_most("idle, transactions", one["transactions_a_minute"], TRANSACTIONS, " a min"),
        report.at_most("idle, memory", one["rss_mb"], RSS_MB, " MB"),
    ]
