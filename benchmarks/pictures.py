"""The charts of scaling, growth and http; those of the comparison are in peers/pictures.py."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.charts import Bar, Group, bars


def scaling(tables: Mapping[str, Mapping[str, float]]) -> str:
    """Steps a second: by title and case."""
    groups = [
        Group(f"{case} {unit if case != '1' else unit[:-1]}", [Bar(place, rate, f"{rate:,.0f}")])
        for place, (unit, cases) in enumerate(tables.items())
        for case, rate in cases.items()
    ]
    note = "runs of function nodes; 32 threads together, or those told; else 16 threads"
    return bars("Steps a second, by what grows", note, [f"by {unit}" for unit in tables], groups)


def growth(operations: Mapping[str, Mapping[int, float]]) -> str:
    """Milliseconds: by operation and number of runs in the table."""
    sizes = list(dict.fromkeys(size for taken in operations.values() for size in taken))
    groups = [
        Group(name, [Bar(sizes.index(size), value, f"{value:.2f}") for size, value in p50.items()])
        for name, p50 in operations.items()
    ]
    title = "One after the other, by the number of runs in the table"
    return bars(title, "p50 in milliseconds", [f"{size:,} runs" for size in sizes], groups)


def http(requests: Mapping[str, Mapping[str, float]]) -> str:
    """Requests a second: by kind, without the limits that stand beside them."""
    groups = [
        Group(name, [Bar(0, rate, f"{rate:,.0f}")], strong=name == "cancel a run")
        for name, taken in requests.items()
        if "p50Ms" in taken and (rate := taken["requestsPerSecond"])
    ]
    note = "on the same processors as its PostgreSQL and the program that sends"
    return bars("Requests a second through gunicorn", note, ["requests a second"], groups)
