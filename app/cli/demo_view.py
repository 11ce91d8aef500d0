"""How ``metronome demo`` shows a run while it goes on: a live table, lines, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live

from app.cli import tables
from app.cli.tables import Record


class View(Protocol):
    """Is shown the run and its steps again and again, the last time once all has settled."""

    def show(self, run: Record, steps: Sequence[Record]) -> None:
        """What is known now."""

    def settled(self, run: Record, steps: Sequence[Record]) -> None:
        """What will not change any more."""


class Nothing:
    """For ``--json``."""

    def show(self, run: Record, steps: Sequence[Record]) -> None:
        """Show nothing."""

    def settled(self, run: Record, steps: Sequence[Record]) -> None:
        """Show nothing."""


class LiveTable:
    """For terminals: the trace, drawn anew in the same place."""

    def __init__(self, live: Live, skew: Any) -> None:
        self._live = live
        self._skew = skew

    def show(self, run: Record, steps: Sequence[Record]) -> None:
        """Draw the table."""
        now = datetime.now(UTC) + self._skew
        self._live.update(tables.steps(steps, run, now), refresh=True)

    def settled(self, run: Record, steps: Sequence[Record]) -> None:
        """Draw it once more; it stays."""
        self._live.update(tables.steps(steps, run), refresh=True)


class Lines:
    """For files and pipes: a line for each change, and the trace as a table at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: dict[str, str] = {}
        self._cancel_shown = False

    def show(self, run: Record, steps: Sequence[Record]) -> None:
        """Print what is new."""
        lines: list[tuple[str, str]] = []
        if run["status"] == "cancelled" and not self._cancel_shown:
            self._cancel_shown = True
            lines.append((tables.clock(run["completedAt"]), "-- cancel --"))
        for step in steps:
            if self._seen.get(step["id"]) == step["status"]:
                continue
            self._seen[step["id"]] = step["status"]
            at = step["startedAt"] if step["status"] == "running" else step["completedAt"]
            never = step["status"] == "cancelled" and step["startedAt"] is None
            took = "never started" if never else tables.duration(step["durationMs"])
            node = tables.plain(step["nodeId"])
            time = tables.clock(at or step["createdAt"])
            lines.append((time, f"{node:<13} {step['nodeType']:<10} {step['status']:<10} {took}"))
        for time, told in sorted(lines, key=lambda line: line[0]):
            self._console.print(f"{time}  {told}".rstrip())
        self._console.file.flush()

    def settled(self, run: Record, steps: Sequence[Record]) -> None:
        """Print what is new, then the whole trace."""
        self.show(run, steps)
        self._console.print()
        tables.show(self._console, tables.steps(steps, run))


@contextmanager
def view(console: Console | None, created_at: str) -> Iterator[View]:
    """The view that suits ``console``; None is for nothing at all.

    ``created_at`` is the run's, which has just been created: it tells the server's time.
    """
    if console is None:
        yield Nothing()
    elif console.is_terminal and not console.is_dumb_terminal:
        skew = datetime.fromisoformat(created_at) - datetime.now(UTC)
        with Live(console=console, auto_refresh=False, redirect_stdout=False) as live:
            yield LiveTable(live, skew)
    else:
        yield Lines(console)
