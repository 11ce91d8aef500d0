"""How does it scale? ``python -m benchmarks.scaling [--quick] [--json PATH]``

Steps a second, each table in turns, medians of the rounds:

- with 1, 2 and 4 executor processes, of as many threads together;
- with 1 to 64 threads in one process;
- of graphs of 10, 100 and 1,000 nodes;
- of steps whose outputs have 1 kB to 1 MB, and what they do to runs with small outputs beside them.

The nodes are calls of functions that do nothing, or only answer a text.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import pictures, report, steps
from benchmarks.report import Figure, median
from benchmarks.server import Bench, Plan, server

NO_LOSS = 0.9  # of one process's steps a second, by two on the same cores
Case = tuple[str, Callable[[], float]]
Tables = dict[str, dict[str, float]]  # steps a second by what grows, and how far


def calls(nodes: int, size: int = 0) -> dict[str, Any]:
    """The definition: so many calls, one behind the other; their answers have ``size`` bytes."""
    config: dict[str, Any] = {"functionName": "nothing"}
    if size:
        config = {"functionName": "text", "payload": {"length": size}}
    made = [{"id": f"n{n}", "kind": "function", "config": config} for n in range(nodes)]
    edges = [{"source": f"n{n}", "target": f"n{n + 1}"} for n in range(nodes - 1)]
    return {"nodes": made, "edges": edges}


def in_turns(
    tables: Tables, title: str, unit: str, cases: Sequence[Case], rounds: int
) -> list[float]:
    """Measure each case ``rounds`` times, print a table; the medians, also kept in ``tables``."""
    taken: list[list[float]] = [[] for _ in cases]
    for number in range(rounds):
        order = range(len(cases)) if number % 2 == 0 else reversed(range(len(cases)))
        for place in order:
            taken[place].append(cases[place][1]())
    medians = [median(one) for one in taken]
    rows = [
        (name, value, value / medians[0]) for (name, _), value in zip(cases, medians, strict=True)
    ]
    report.table(f"{title} (medians of {rounds})", (unit, "steps/s", "ratio"), rows)
    tables[unit] = {name: value for (name, _), value in zip(cases, medians, strict=True)}
    return medians


def executors(bench: Bench, tables: Tables, rounds: int, runs: int) -> list[Figure]:
    """1, 2 and 4 processes, 32 threads together."""
    plan = Plan(bench, "executors", calls(10))

    def case(count: int) -> Case:
        return str(count), lambda: steps.executor(bench, plan, 32 // count, runs, executors=count)[
            0
        ]

    one, two, _ = in_turns(
        tables,
        "Executor processes, of 32 threads together",
        "executors",
        [case(count) for count in (1, 2, 4)],
        rounds,
    )
    return [report.at_least("steps/s of two executors, of one's", two / one, NO_LOSS)]


def threads(bench: Bench, tables: Tables, rounds: int, runs: int) -> list[Figure]:
    """1 to 64 threads in one process."""
    plan = Plan(bench, "threads", calls(10))

    def case(count: int) -> Case:
        size = max(10, runs * min(count, 16) // 16)
        return str(count), lambda: steps.executor(bench, plan, count, size)[0]

    taken = in_turns(
        tables,
        "Threads of one executor",
        "threads",
        [case(count) for count in (1, 2, 4, 8, 16, 32, 64)],
        rounds,
    )
    return [Figure("steps/s of 64 threads, of one's", f"{taken[-1] / taken[0]:.1f}")]


def graphs(bench: Bench, tables: Tables, rounds: int, runs: int) -> list[Figure]:
    """Graphs of 10, 100 and 1,000 nodes, as many steps in all."""

    def case(nodes: int) -> Case:
        plan, count = Plan(bench, f"{nodes} nodes", calls(nodes)), max(2, runs * 10 // nodes)
        return f"{nodes:,}", lambda: steps.executor(bench, plan, 16, count, nodes=nodes)[0]

    taken = in_turns(
        tables, "Nodes of a graph, 16 threads", "nodes", [case(n) for n in (10, 100, 1_000)], rounds
    )
    return [Figure("steps/s of 1,000 nodes, of 10's", f"{taken[2] / taken[0]:.2f}")]


def outputs(bench: Bench, tables: Tables, rounds: int, runs: int) -> list[Figure]:
    """Outputs of 1 kB to 1 MB."""

    def case(size: int) -> Case:
        plan, count = Plan(bench, f"{size} bytes", calls(10, size)), max(2, runs * 1_000 // size)
        count = min(runs, 10 * count)
        return f"{size:,}", lambda: steps.executor(bench, plan, 16, count)[0]

    sizes = (1_000, 10_000, 100_000, 1_000_000 - 1_000)
    taken = in_turns(
        tables, "Bytes of each output, 16 threads", "bytes", [case(size) for size in sizes], rounds
    )
    rate = taken[-1] * sizes[-1] / 1e6
    return [Figure("outputs of 1 MB, written a second", f"{rate:.0f} MB")]


def main() -> int:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--json", type=Path, help="where to keep the figures")
    options = parser.parse_args()
    rounds, runs = (1, 20) if options.quick else (options.rounds, options.runs)
    figures, tables = [], Tables()
    with server() as postgres, postgres.bench() as bench:
        for measure in (executors, threads, graphs, outputs):
            figures += measure(bench, tables, rounds, runs)
    report.conclude(figures)
    report.save(options.json, {"scaling": {"tables": tables, "figures": report.as_data(figures)}})
    report.draw(options.json, pictures.scaling(tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
