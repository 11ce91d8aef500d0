"""Tables and figures for people."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One result; ``met`` is None where there is no target."""

    name: str
    value: str
    target: str = ""
    met: bool | None = None


def at_least(name: str, value: float, target: float) -> Figure:
    """A figure that is to be ``target`` or more."""
    return Figure(name, f"{value:.2f}", f">= {target:g}", value >= target)


def at_most(name: str, value: float, target: float, unit: str = "") -> Figure:
    """A figure that is to be ``target`` or less; ``unit`` is said behind both."""
    return Figure(name, f"{value:.2f}{unit}", f"<= {target:g}{unit}", value <= target)


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers to the right."""
    shown = [[_show(value) for value in row] for row in rows]
    widths = [max(len(row[place]) for row in [list(heads), *shown]) for place in range(len(heads))]
    print(f"\n{title}\n")
    for row in [list(heads), ["-" * width for width in widths], *shown]:
        cells = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(cells).rstrip())
    print(flush=True)


def _show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def conclude(figures: Sequence[Figure]) -> bool:
    """Print each figure with its target; whether none missed it."""
    words = {True: "met", False: "MISSED", None: ""}
    table(
        "Figures",
        ("figure", "value", "target", ""),
        [(one.name, one.value, one.target, words[one.met]) for one in figures],
    )
    return all(one.met is not False for one in figures)


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which ``percent`` of ``values`` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def save(path: str | None, measured: Mapping[str, object]) -> None:
    """Write what was measured as JSON to ``path``, for a program that collects it."""
    if path is not None:
        Path(path).write_text(f"{json.dumps(measured, indent=2)}\n")


def draw(path: str | None, picture: str) -> None:
    """Write a chart beside the JSON of ``path``, as SVG."""
    if path is not None:
        Path(path).with_suffix(".svg").write_text(picture)


def as_data(figures: Sequence[Figure]) -> dict[str, object]:
    """Figures by name, for ``save``."""
    return {one.name: {"value": one.value, "target": one.target, "met": one.met} for one in figures}
