"""What was measured: kept as JSON, shown as tables and charts, written into the documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.peers import pictures, tables
from benchmarks.peers.tables import Table

BEGIN, END = ".. begin: peers", ".. end: peers"

Data = dict[str, Any]


def load(path: Path) -> Data:
    """What was kept; nothing where there is no file."""
    kept: Data = json.loads(path.read_text()) if path.exists() else {}
    return kept


def merge(kept: Data, new: Data, *, add: bool) -> Data:
    """``new`` in place of what was kept of the same parts; ``add`` puts its rounds behind them."""
    merged = {**kept, **new}
    merged["peers"] = {**kept.get("peers", {}), **new.get("peers", {})}
    failed = {part: one for part, one in kept.get("failures", {}).items() if part not in new}
    merged["failures"] = {**failed, **new.get("failures", {})}
    if add:
        for part in ("throughput", "limit", "latency", "cancels"):
            if part in kept and part in new:
                merged[part] = _joined(kept[part], new[part])
    return merged


def _joined(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping):
        return {
            key: _joined(one[key], other[key])
            if key in one and key in other
            else (one.get(key) or other.get(key))
            for key in dict.fromkeys([*one, *other])
        }
    return [*one, *other]


def show(data: Data) -> None:
    """Print all tables."""
    for table in tables.all_of(data):
        report.table(table.title, table.heads, table.rows)


def write(data: Data, directory: Path) -> None:
    """Into ``directory``: JSON and charts; and tables into performance.rst beside it, where the
    marks are."""
    directory.mkdir(parents=True, exist_ok=True)
    text = _compact(data)
    data = json.loads(text)  # what is shown is what is kept
    (directory / "peers.json").write_text(text)
    for name, picture in pictures.all_of(data).items():
        (directory / f"{name}.svg").write_text(picture)
    page = directory.parent / "performance.rst"
    if page.exists():
        text = page.read_text()
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if begin and end:
            page.write_text(f"{before}{BEGIN}\n\n{restructured(data, directory.name)}{END}{after}")


def _compact(data: Data) -> str:
    """JSON of which lists of numbers take one line each."""
    text = json.dumps(_rounded(data), indent=1)
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def restructured(data: Data, directory: str) -> str:
    """The tables and charts for the page; ``directory`` is where it finds the pictures."""
    shown = pictures.all_of(data)
    parts = [f"Measured on {_machine(data)}.\n"]
    for table in tables.all_of(data):
        if table.picture in shown:
            told = re.split("[,:]", table.title)[0]
            parts.append(f".. image:: {directory}/{table.picture}.svg\n   :alt: {told}\n")
        parts.append(_list_table(table))
    return "\n".join(parts) + "\n"


def _machine(data: Data) -> str:
    told = data["machine"]
    return f"{told['date']}: {told['cores']} cores, PostgreSQL {told['postgresql']}"


def _list_table(table: Table) -> str:
    lines = [f".. list-table:: {table.title}", "   :header-rows: 1", ""]
    for row in [table.heads, *table.rows]:
        lines += _cells(row)
    return "\n".join(lines) + "\n"


def _cells(row: Sequence[str]) -> list[str]:
    return [
        f"   {'* -' if place == 0 else '  -'} {cell}".rstrip() for place, cell in enumerate(row)
    ]
