"""Bar charts as SVG, written by hand: readable in light and dark, and small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
LEFT, RIGHT = 150, 96  # of the bars: for the names, and for the numbers behind the bars
BAR, GAP = 15, 14  # heights: of a bar, and between two groups
TOP = 88
COLOURS = ("#2f81f7", "#2da44e", "#a371f7", "#d4a72c")

_STYLE = """
text { font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.strong { font-weight: 700 }
.muted { fill: #59636e }
.ground { fill: #ffffff }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.none { fill: none; stroke: #818b98; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  .ground { fill: #0d1117 } .grid { stroke: #3d444d }
  text { fill: #f0f6fc } .muted { fill: #9198a1 }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """``value`` None is drawn as an open bar over the whole width; ``text`` stands behind it."""

    series: int
    value: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """The bars of one name, one below the other; ``strong`` sets the name off."""

    name: str
    bars: Sequence[Bar]
    strong: bool = False


def bars(
    title: str, note: str, series: Sequence[str], groups: Sequence[Group], *, log: bool = False
) -> str:
    """A chart of horizontal bars; ``log`` where the values span decades."""
    values = [bar.value for group in groups for bar in group.bars if bar.value]
    scale = _log_scale(values) if log else _linear_scale(values)
    height = TOP + sum(len(group.bars) * BAR + GAP for group in groups) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        '<rect class="ground" width="100%" height="100%" rx="6"/>',
        _text(16, 26, title, "title"),
        _text(16, 46, note, "muted"),
        *_legend(series),
        *_grid(scale, height),
    ]
    y = TOP + GAP // 2
    for group in groups:
        middle = y + len(group.bars) * BAR / 2 + 4
        kind = "strong" if group.strong else ""
        parts.append(_text(LEFT - 10, middle, group.name, kind, "end"))
        for bar in group.bars:
            parts.append(_bar(bar, y, scale))
            y += BAR
        y += GAP
    return "\n".join([*parts, "</svg>\n"])


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    ticks: Sequence[float]
    log: bool

    def x(self, value: float) -> float:
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            part = (math.log10(max(value, self.low)) - low) / (high - low)
        else:
            part = value / self.high
        return LEFT + part * (WIDTH - LEFT - RIGHT)


def _log_scale(values: Sequence[float]) -> _Scale:
    least, most = min(values, default=1.0), max(values, default=10.0)
    powers = range(math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 1)
    steps = [part * 10.0**power for power in powers for part in (1, 2, 5)]
    low = max(step for step in steps if step < 0.8 * least)  # so that every bar is seen
    high = min(step for step in steps if step >= most)
    inside = [step for step in steps if low <= step <= high]
    decades = [step for step in inside if math.log10(step).is_integer()]
    return _Scale(low, high, decades if len(decades) > 2 else inside, True)


def _linear_scale(values: Sequence[float]) -> _Scale:
    most = max(values, default=1)
    unit = 10.0 ** math.floor(math.log10(most))
    step = next(unit * part for part in (0.2, 0.5, 1, 2) if most / (unit * part) <= 6)
    count = math.ceil(most / step)
    return _Scale(0, step * count, [step * number for number in range(count + 1)], False)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _legend(series: Sequence[str]) -> list[str]:
    parts, x = [], 16.0
    for number, name in enumerate(series):
        parts.append(f'<rect x="{x:g}" y="58" width="11" height="11" fill="{COLOURS[number]}"/>')
        parts.append(_text(x + 17, 68, name, "muted"))
        x += 40 + 6.6 * len(name)
    return parts


def _grid(scale: _Scale, height: int) -> list[str]:
    parts = []
    for tick in scale.ticks:
        x = scale.x(tick)
        parts.append(f'<path class="grid" d="M{x:g} {TOP} V{height - 26}"/>')
        parts.append(_text(x, height - 10, f"{tick:,g}", "muted", "middle"))
    return parts


def _bar(bar: Bar, y: float, scale: _Scale) -> str:
    end = WIDTH - RIGHT if bar.value is None else scale.x(bar.value) if bar.value else LEFT
    look = 'class="none"' if bar.value is None else f'fill="{COLOURS[bar.series]}"'
    width = max(end - LEFT, 0)
    drawn = f'<rect x="{LEFT}" y="{y + 1:g}" width="{width:g}" height="{BAR - 2}" {look}/>'
    if bar.value is None:  # its text goes inside
        return drawn + _text(LEFT + 8, y + BAR - 3.5, bar.text, "muted")
    return drawn + _text(end + 5, y + BAR - 3.5, bar.text, "")
