"""Charts are SVG that any program can read, and their bars are as long as the values are great."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks import pictures
from benchmarks.charts import LEFT, RIGHT, WIDTH, Bar, Group, bars

SVG = "{http://www.w3.org/2000/svg}"


def _drawn(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def _bars(text: str) -> list[float]:
    found = [one for one in _drawn(text).iter(f"{SVG}rect") if one.get("x") == str(LEFT)]
    return [float(one.get("width") or "nan") for one in found]


def _chart(*values: float | None, log: bool = False) -> str:
    groups = [Group("name", [Bar(0, value, "text")]) for value in values]
    return bars("title", "note", ["series"], groups, log=log)


def test_a_linear_bar_is_proportional() -> None:
    one, three, nothing = _bars(_chart(20.0, 60.0, 0.0))
    assert three == pytest.approx(3 * one, abs=0.01)
    assert nothing == 0


def test_a_decade_is_as_long_as_another_one() -> None:
    one, two, three = _bars(_chart(2.0, 20.0, 200.0, log=True))
    assert two - one == pytest.approx(three - two, abs=0.01)
    assert one > 0


def test_what_has_no_value_is_open_over_the_whole_width() -> None:
    text = _chart(None, 3.0)
    assert _bars(text)[0] == WIDTH - LEFT - RIGHT
    assert 'class="none"' in text


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("values", [(), (0.0,), (None,), (1.0,), (0.004, 21_000.0), (99.9, 100.0)])
def test_no_bar_leaves_the_picture(values: tuple[float | None, ...], log: bool) -> None:
    widths = _bars(_chart(*values, log=log))
    assert len(widths) == len(values)
    assert all(0 <= width <= WIDTH - LEFT - RIGHT for width in widths)


def test_what_grows_has_a_colour_of_its_own() -> None:
    kinds = ("executors", "threads", "nodes", "bytes")
    text = pictures.scaling({kind: {"1": 50.0, "1,000": 100.0} for kind in kinds})
    widths = _bars(text)
    assert widths[1::2] == pytest.approx([2 * width for width in widths[::2]], abs=0.01)
    assert len({one.get("fill") for one in _drawn(text).iter(f"{SVG}rect")} - {None}) == 4
    shown = "".join(_drawn(text).itertext())
    assert all(name in shown for name in ("1 executor", "1,000 threads", "by nodes", "1 byte"))


def test_names_are_escaped() -> None:
    text = bars("a < b", "note & more", ["<s>"], [Group("<g>", [Bar(0, 1.0, "1 & 2")])])
    shown = "".join(_drawn(text).itertext())
    assert all(part in shown for part in ("a < b", "note & more", "<s>", "<g>", "1 & 2"))


def test_it_is_readable_on_dark_ground_too() -> None:
    assert "prefers-color-scheme: dark" in _chart(1.0)
