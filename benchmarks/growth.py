"""What grows with the table? ``python -m benchmarks.growth [--full] [--quick] [--json PATH]``

Claim, cancel, get run, list 100 runs and list steps in tables of 1,000, 100,000 and 1,000,000 runs
(with ``--full`` 10,000,000 as well: some 25 GB, and seven minutes in all), in one server and in
turns: one operation after the other, straight at the store, where nothing hides what PostgreSQL
takes. ``recent`` runs are the newest, which people ask for; those ``anywhere`` lie all over the
table, in pages that are in no cache of PostgreSQL's.

The statistics of the server tell which indexes each operation looks into, and how many rows it
reads; a table that is read from end to end fails the program.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from app.domain.models import Page
from app.store import cancels, leases, run_list, runs, trace
from app.store.run_list import RunFilter
from benchmarks import filling, pictures, report
from benchmarks.report import Figure, median, percentile
from benchmarks.server import Bench, Plan, Server, queue, server

GROWTH = 1.2
SIZES = (1_000, 100_000, 1_000_000)
FULL = 10_000_000
TARGETS = ("claim", "cancel, recent", "get, recent")
TABLES = ("runs", "steps", "audit_events")

_SCANNED = """
SELECT 'table ' || relname, seq_scan, seq_tup_read FROM pg_stat_user_tables WHERE relname = ANY(%s)
UNION ALL
SELECT indexrelname, idx_scan, idx_tup_read FROM pg_stat_user_indexes WHERE relname = ANY(%s)
"""
_SIZE = "SELECT pg_total_relation_size(%s), pg_table_size(%s)"

Statistics = dict[str, tuple[int, int]]


class Table:
    """A database that was filled, and one connection of each kind to it."""

    def __init__(self, bench: Bench, size: int, stack: ExitStack) -> None:
        self.bench, self.size = bench, size
        self.plan: Plan = filling.fill(bench, size)
        self.connection = stack.enter_context(bench.db.connect())
        self.raw = bench.db.raw()
        self._sleeping = filling.anywhere(size, size, sleeping=True)
        stack.callback(self.raw.close)

    def recent(self, count: int) -> list[str]:
        """The newest runs that have completed."""
        found = self.bench.sql(
            "SELECT id FROM runs WHERE metronome_id = %s AND status = 'completed'"
            " ORDER BY id DESC LIMIT %s",
            *(self.plan.metronome_id, count),
        )
        return [found[number % len(found)][0] for number in range(count)]

    def queued(self, count: int) -> list[str]:
        """New runs."""
        return queue(self.bench.connection, self.plan, count, notify=False)

    def sleeping(self, count: int) -> list[str]:
        """Runs all over the table that sleep, none of them twice."""
        found = self._sleeping[:count]
        del self._sleeping[:count]
        # A small table has not so many. All of it is in the cache anyway.
        return found + self.queued(count - len(found))

    def works(self, count: int) -> Iterator[tuple[str, list[Callable[[], object]]]]:
        """Each operation, as what is to be called ``count`` times; what it needs is made before."""
        actor, of, connection = self.bench.actor, self.plan.metronome_id, self.connection
        page = Page(101, 0, None)

        def each(call: Callable[[str], object], ids: list[str]) -> list[Callable[[], object]]:
            return [lambda one=one: call(one) for one in ids]  # type: ignore[misc]

        def cancel(one: str) -> object:
            done = cancels.cancel(connection, actor, of, one)
            assert done is not None
            return done

        def get(one: str) -> object:
            return runs.view(connection, actor, of, one)

        def steps(one: str) -> object:
            return trace.page(connection, actor, of, one, page)

        def listed() -> object:
            wanted = RunFilter()
            return run_list.of_metronome(connection, actor.organization_id, of, wanted, page)

        self.queued(count)
        yield "claim", [self._claim] * count
        yield "cancel, recent", each(cancel, self.queued(count))
        yield "cancel, anywhere", each(cancel, self.sleeping(count))
        yield "get, recent", each(get, self.recent(count))
        yield "get, anywhere", each(get, filling.anywhere(self.size, count))
        yield "list 100 runs", [listed] * (count // 4)
        yield "steps, recent", each(steps, self.recent(count))
        yield "steps, anywhere", each(steps, filling.anywhere(self.size, count))

    def _claim(self) -> object:
        claimed = leases.claim(self.raw, "benchmark", limit=1, lease=3600)
        assert claimed
        return claimed

    def statistics(self) -> Statistics:
        """How often each table and index was read so far, and how many rows of it."""
        for statement in ("SELECT pg_stat_force_next_flush()", "SELECT 1"):
            self.connection.exec_driver_sql(statement)
            self.bench.sql(statement)
            with self.raw.cursor() as cursor:
                cursor.execute(statement)
        names = list(TABLES)
        return {row[0]: (row[1], row[2]) for row in self.bench.sql(_SCANNED, names, names)}


def _timed(calls: list[Callable[[], object]]) -> list[float]:
    taken = []
    for call in calls:
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return taken


def measure(
    tables: list[Table], *, rounds: int, count: int
) -> tuple[dict[tuple[str, int], list[float]], dict[tuple[str, int], dict[str, float]]]:
    """The p50 of each operation and size, by round; and what one of them reads, by index."""
    taken: dict[tuple[str, int], list[float]] = {}
    read: dict[tuple[str, int], dict[str, float]] = {}
    for number in range(rounds + 1):
        ordered = tables if number % 2 else tables[::-1]
        works = {table.size: table.works(count) for table in ordered}
        while True:
            ready = {size: next(work, None) for size, work in works.items()}
            for table in ordered:
                if (one := ready[table.size]) is None:
                    continue
                name, calls = one
                before = table.statistics()
                times = _timed(calls)
                if not number:  # the first round fills caches; plans are the same in all of them
                    read[name, table.size] = _read(before, table.statistics(), len(calls))
                    continue
                taken.setdefault((name, table.size), []).append(percentile(times, 50) * 1000)
            if None in ready.values():
                break
    return taken, read


def _read(before: Statistics, after: Statistics, count: int) -> dict[str, float]:
    """The rows that one operation reads, by table (from end to end) and index."""
    return {
        name: (rows - before[name][1]) / count
        for name, (scans, rows) in after.items()
        if scans > before[name][0]
    }


def show(
    taken: dict[tuple[str, int], list[float]],
    read: dict[tuple[str, int], dict[str, float]],
    sizes: tuple[int, ...],
    rounds: int,
) -> tuple[list[Figure], dict[str, Any]]:
    """Print the tables; the figures, and all of it as data."""
    names = list(dict.fromkeys(name for name, _ in taken))
    rows: list[tuple[object, ...]] = []
    figures: list[Figure] = []
    data: dict[str, Any] = {}
    for name in names:
        p50 = {size: median(taken[name, size]) for size in sizes}
        ratios = {
            size: median(
                [
                    one / first
                    for one, first in zip(taken[name, size], taken[name, sizes[0]], strict=True)
                ]
            )
            for size in sizes
        }
        rows.append((name, *p50.values(), *list(ratios.values())[1:]))
        data[name] = {"p50Ms": p50, "ratio": ratios, "rowsRead": {}}
        label = f"{name}: {sizes[-1]:,} runs to {sizes[0]:,}"
        if name in TARGETS:
            figures.append(report.at_most(label, ratios[sizes[-1]], GROWTH))
        else:
            figures.append(Figure(label, f"{ratios[sizes[-1]]:.2f}"))
    report.table(
        f"One after the other, p50 in ms by the number of runs (medians of {rounds} rounds)",
        ("operation", *(f"{size:,}" for size in sizes), *(f"ratio {size:,}" for size in sizes[1:])),
        rows,
    )
    report.table(
        f"What one of them reads of {sizes[-1]:,} runs: rows, by index",
        ("operation", "indexes"),
        [(name, _told(read[name, sizes[-1]])) for name in names],
    )
    whole = []
    for (name, size), indexes in read.items():
        data[name]["rowsRead"][size] = indexes
        if size >= 10_000:  # of a smaller table it may be the best way
            whole += [(name, size, one) for one in indexes if one.startswith("table ")]
    assert not whole, f"read from end to end: {whole}"
    return figures, data


def _told(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {rows:.0f}" for name, rows in sorted(found.items()))


def storage(table: Table) -> tuple[list[Figure], dict[str, Any]]:
    """Bytes of one row and of its places in the indexes."""
    lines, figures = [], []
    data: dict[str, Any] = {}
    for name in TABLES:
        whole, own = table.bench.sql(_SIZE, name, name)[0]
        count = table.bench.sql(f"SELECT count(*) FROM {name}")[0][0]
        lines.append((name, count, own / count, (whole - own) / count, whole / count))
        data[name] = {"rows": count, "tableBytes": own / count, "indexBytes": (whole - own) / count}
        figures.append(Figure(f"bytes of a row of {name}", f"{whole / count:.0f}"))
    heads = ("table", "rows", "itself", "indexes", "all")
    report.table(f"Bytes of a row ({table.size:,} runs)", heads, lines)
    return figures, data


def run(
    postgres: Server, *, sizes: tuple[int, ...], rounds: int, count: int
) -> tuple[list[Figure], dict[str, Any]]:
    """Fill, measure, print."""
    with ExitStack() as stack:
        tables = []
        for size in sizes:
            begin = time.perf_counter()
            bench = stack.enter_context(postgres.bench())
            tables.append(Table(bench, size, stack))
            print(f"{size:,} runs put in in {time.perf_counter() - begin:.0f} s", flush=True)
        bytes_figures, bytes_data = storage(tables[-1])
        taken, read = measure(tables, rounds=rounds, count=count)
        figures, data = show(taken, read, sizes, rounds)
    return figures + bytes_figures, {"operations": data, "storage": bytes_data}


def main() -> int:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    parser.add_argument("--full", action="store_true", help="ten million runs as well")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=400, help="operations of a kind in a round")
    parser.add_argument("--json", metavar="PATH", help="write the figures there")
    options = parser.parse_args()
    sizes: tuple[int, ...] = (*SIZES, FULL) if options.full else SIZES
    rounds, count = options.rounds, options.count
    if options.quick:
        sizes, rounds, count = (200, 20_000), 1, 20
    with server() as postgres:
        figures, data = run(postgres, sizes=sizes, rounds=rounds, count=count)
    report.conclude(figures)
    report.save(options.json, {"growth": {**data, "figures": report.as_data(figures)}})
    p50 = {name: one["p50Ms"] for name, one in data["operations"].items()}
    report.draw(options.json, pictures.growth(p50))
    return 0


if __name__ == "__main__":
    sys.exit(main())
