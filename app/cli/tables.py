"""What the commands show: tables that fit into 80 columns, and no colour but on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {
    "running": "cyan",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "paused": "magenta",
    "waiting_approval": "magenta",
    "skipped": "dim",
}
_MAX_SHORT = 200  # characters of an output; the column cuts it to its width
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))

Record = Mapping[str, Any]


def console() -> Console:
    """Where tables go; what the terminal's encoding lacks becomes a question mark."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    return Console(markup=False, highlight=False, emoji=False)


def show(screen: Console, table: Table) -> None:
    """Print a table; into files and pipes without the blanks that fill its lines up."""
    if screen.is_terminal:
        screen.print(table)
        return
    with screen.capture() as captured:
        screen.print(table)
    screen.file.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def plain(value: object) -> str:
    """``value`` as one line of text that does nothing to a terminal."""
    text = "" if value is None else " ".join(str(value).split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def status(value: str, said: str | None = None) -> Text:
    """A status in its colour, or other words in it."""
    return Text(said or plain(value), STYLES.get(value, ""))


def moment(iso: str | None) -> datetime | None:
    """A time of the API."""
    return None if iso is None else datetime.fromisoformat(iso)


def clock(iso: str | None) -> str:
    """The time of day in UTC: ``14:03:07.125``."""
    time = moment(iso)
    return "" if time is None else time.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]


def day_and_time(iso: str | None) -> str:
    """``2030-01-31 14:03:07.125 UTC``."""
    time = moment(iso)
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d} {clock(iso)} UTC"


def duration(ms: float | None) -> str:
    """``812 ms``, ``1.24 s``, ``3m 12s``."""
    if ms is None:
        return ""
    if ms < 999.5:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.2f} s" if ms < 60_000 else _long(ms / 1000)


def age(iso: str | None, now: datetime | None = None) -> str:
    """How long ago that was: ``5s ago``."""
    time = moment(iso)
    if time is None:
        return ""
    return f"{_long(max(0, ((now or datetime.now(UTC)) - time).total_seconds()))} ago"


def _long(seconds: float) -> str:
    left = int(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) if seconds < 86_400 else parts[0]


def between(start: str | None, end: str | None) -> float | None:
    """Milliseconds from ``start`` to ``end``; None where one of them is not known."""
    began, ended = moment(start), moment(end)
    return None if began is None or ended is None else (ended - began).total_seconds() * 1000


def _table(*columns: str, last_grows: bool = False, right: Iterable[str] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if last_grows and name == columns[-1] else None,
        )
    table.expand = last_grows
    return table


def metronomes(found: Sequence[Record]) -> Table:
    """Workflows: what they are called and how old they are."""
    table = _table("id", "status", "changed", "name", last_grows=True)
    for one in found:
        table.add_row(one["id"], one["status"], age(one["updatedAt"]), plain(one["name"]))
    return table


def versions(found: Sequence[Record]) -> Table:
    """Versions: which one is published, how old they are, what is said of them."""
    table = _table("version", "id", "status", "saved", "description", last_grows=True)
    for one in found:
        row = [one["label"], one["id"], one["status"], age(one["createdAt"])]
        table.add_row(*row, plain(one["description"]))
    return table


def deployments(found: Sequence[Record]) -> Table:
    """What was published and unpublished: when, by whom, and what was said of it."""
    table = _table("when", "action", "version", "by", "description", last_grows=True)
    for one in found:
        row = [age(one["createdAt"]), one["action"], one["label"], plain(one["actorUserId"])]
        table.add_row(*row, plain(one["description"]))
    return table


def runs(found: Sequence[Record]) -> Table:
    """Runs: how they stand, how old they are, how long they took."""
    table = _table("id", "status", "created", "took", "error", last_grows=True, right=["took"])
    for run in found:
        took = duration(between(run["startedAt"], run["completedAt"]))
        row = [run["id"], status(run["status"]), age(run["createdAt"]), took, plain(run["error"])]
        table.add_row(*row)
    return table


def run(one: Record) -> Table:
    """Everything there is to say of one run."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows: list[tuple[str, str | Text]] = [
        ("run", one["id"]),
        ("metronome", one["metronomeId"]),
        ("status", status(one["status"])),
        ("group", plain(one["concurrencyKey"])),
        ("place", "" if one["admitted"] else "none yet: its workflow is at its limit"),
        ("error", plain(one["error"])),
        ("created", f"{day_and_time(one['createdAt'])} ({age(one['createdAt'])})"),
        ("started", day_and_time(one["startedAt"])),
        ("ended", day_and_time(one["completedAt"])),
        ("took", duration(between(one["startedAt"], one["completedAt"]))),
        ("goes on", day_and_time(one["nextAttemptAt"])),
        ("in doubt", "a node may have run; look at what it did" if one["inDoubt"] else ""),
        ("in flight", plain(", ".join(node["nodeId"] for node in one["inFlight"]))),
        ("waits for", plain(", ".join(_waiting(node) for node in one["waitingFor"]))),
        ("held by", plain(one["lockedBy"])),
        ("attempt", f"{one['attemptCount']} of {one['maxAttempts']}"),
        ("trigger", plain(one["triggerType"])),
        ("version", one["versionId"]),
        ("started by", plain(one["parentRunId"])),
        ("top run", plain(one["rootRunId"])),
        ("nested runs", str(one["childCount"] or "")),
        ("project", plain(one["attachedProjectId"])),
        ("ticket", plain(one["attachedTicketId"])),
        ("input", short(one["input"])),
        ("output", short(one["output"])),
    ]
    for name, value in rows:
        if value:
            table.add_row(name, value)
    return table


def _waiting(node: Record) -> str:
    """What a node waits for: ``ask (approval)``, ``nap (sleep until 2030-...)``."""
    what = str(node["type"]).replace("_", " ")
    run = f" {node['childRunId']}" if node["childRunId"] else ""
    until = f" until {day_and_time(node['until'])}" if node["until"] else ""
    return f"{node['nodeId']} ({what}{run}{until})"


def approval(one: Record) -> list[str]:
    """A step that waits for a decision: what is asked, and of which run."""
    until = f", until {day_and_time(one['deadline'])}" if one["deadline"] else ""
    lines = [plain(one["title"]) or plain(one["nodeId"])]
    if one["message"]:
        lines.append(f"  {plain(one['message'])}")
    lines.append(f"  node {plain(one['nodeId'])}, asked {age(one['requestedAt'])}{until}")
    lines.append(f"  {one['metronomeId']} {one['runId']}")
    return lines


def short(value: Any) -> str:
    """JSON on one line; nothing for null and ``{}``."""
    if not value:
        return ""
    text = plain(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _MAX_SHORT else f"{text[:_MAX_SHORT]}\N{HORIZONTAL ELLIPSIS}"


def steps(found: Sequence[Record], run: Record, now: datetime | None = None) -> Table:
    """The trace of ``run``; a line shows where it was cancelled.

    ``now`` (of the server) lets the time of a running step grow.
    """
    names = ("#", "node", "kind", "status", "try", "started UTC", "took", "output or error")
    table = _table(*names, last_grows=True, right=["#", "try", "took"])
    table.padding = (0, 1, 0, 0)
    cancelled = run["completedAt"] if run["status"] == "cancelled" else None
    before = [n for n, s in enumerate(found) if cancelled and _began_by(s, cancelled)]
    line_at = (before[-1] + 1 if before else 0) if cancelled else None
    for number, step in enumerate(found):
        if number == line_at:
            _cancel_line(table, cancelled)
        table.add_row(*_step(step, number + 1, now))
    if line_at == len(found):
        _cancel_line(table, cancelled)
    return table


def _began_by(step: Record, cancelled: str) -> bool:
    began = moment(step["startedAt"]) or moment(step["createdAt"])
    limit = moment(cancelled)
    never = step["status"] == "cancelled" and step["startedAt"] is None
    return not never and began is not None and limit is not None and began <= limit


def _cancel_line(table: Table, cancelled: str | None) -> None:
    cells = ["", "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * 2 + " cancel", "", "", "", clock(cancelled)]
    table.add_row(*cells, style="bold yellow")


def _step(step: Record, number: int, now: datetime | None) -> list[str | Text]:
    took = step["durationMs"]
    began = moment(step["startedAt"])
    if took is None and began and now and step["status"] == "running":
        took = max(0.0, (now - began).total_seconds() * 1000)
    never = began is None and step["status"] == "cancelled"
    told = plain(step["error"]) or short(step["output"])
    return [
        str(number),
        plain(step["nodeId"]),
        plain(step["nodeType"]),
        status(step["status"]),
        str(step["attempt"]),
        Text("never", "dim") if never else clock(step["startedAt"]),
        duration(took),
        Text(told, "dim"),
    ]
