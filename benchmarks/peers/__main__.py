"""Measure Metronome beside its peers. ``python -m benchmarks.peers [--quick] [--peers none]``

All of them in one PostgreSQL, durable, each in a database of its own, in turns. What can't be had
or fails is left out, and its row says why. Writes docs/performance and the tables of
docs/performance.rst, but not with ``--quick`` or some of the peers only.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2

from benchmarks import report
from benchmarks.peers import cancels, idle, latency, results, tables, takeover, targets, throughput
from benchmarks.peers.peer import BUILTIN, NAMES, OURS, Peer, Unavailable
from benchmarks.server import Server, server
from tests.processes import ROOT

PARTS = ("throughput", "latency", "cancels", "takeover", "idle")
PATIENCE, PATIENT = 40.0, 330.0  # seconds for a take-over


class Comparison:
    """One run: what is measured, and what came of it."""

    def __init__(self, postgres: Server, names: Sequence[str], python: str, *, quick: bool) -> None:
        self._postgres = postgres
        self._quick = quick
        self.data: dict[str, Any] = {"machine": _machine(postgres.url), "peers": {}, "failures": {}}
        self._peers: list[Peer] = []
        for name in names:
            peer = Peer(name, python, postgres.url, postgres.home)
            try:
                peer.prepare()
                self._peers.append(peer)
                self.data["peers"][name] = peer.told
            except Unavailable as error:
                self.data["peers"][name] = {"unavailable": str(error)}
                print(f"{name} is not available: {error}", flush=True)

    @property
    def _whole(self) -> list[Peer]:
        """Those of which everything is measured."""
        return [peer for peer in self._peers if peer.name != BUILTIN]

    def _failed(self, part: str, peer: Peer, error: Exception) -> None:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        self.data["failures"].setdefault(part, {})[peer.name] = reason
        print(f"{part} of {peer.name} failed: {error}", flush=True)

    def _in_turns(self, part: str, rounds: int, measure: Callable[[Peer], None]) -> None:
        for number in range(rounds):
            print(f"{part}, round {number + 1} of {rounds}", flush=True)
            peers = self._peers if part == "throughput" else self._whole
            for peer in peers[:: -1 if number % 2 else 1]:
                try:
                    measure(peer)
                except Exception as error:
                    self._failed(part, peer, error)

    def throughput(self, rounds: int) -> None:
        """Steps a second, and the limit."""
        sizes = {"eight": 20} if self._quick else {"eight": 500, "best": 500, "alone": 100}
        taken = self.data["throughput"] = {
            profile: {peer.name: [] for peer in self._peers} for profile in sizes
        }
        limits = self.data["limit"] = {
            threads: [] for profile, threads in tables.LIMITS.items() if profile in sizes
        }

        def measure(peer: Peer) -> None:
            settings, known = peer.told["settings"], {}
            for profile, size in sizes.items():
                key = (str(settings[profile]), size)
                if key not in known:  # the best settings may be those of another profile
                    known[key] = throughput.rate(peer, profile, size)
                taken[profile][peer.name].append(known[key])
            if peer.name == "metronome":
                for threads, rates in limits.items():
                    size = 10 if self._quick else 100 if threads == "1" else 300
                    rates.append(throughput.limit(self._postgres, int(threads), size))

        self._in_turns("throughput", rounds, measure)

    def latency(self, rounds: int) -> None:
        """How soon an idle worker starts."""
        taken = self.data["latency"] = {peer.name: [] for peer in self._whole}
        count = 5 if self._quick else 30
        self._in_turns(
            "latency",
            rounds,
            lambda peer: taken[peer.name].extend(latency.starts(peer, count)),
        )

    def cancels(self, rounds: int) -> None:
        """What becomes of what is cancelled."""
        taken: dict[str, dict[str, list[Any]]] = {}
        self.data["cancels"] = taken

        def measure(peer: Peer) -> None:
            for one in cancels.cancels(peer, 4 if self._quick else 40):
                for name, value in one.items():
                    taken.setdefault(peer.name, {}).setdefault(name, []).append(value)

        self._in_turns("cancels", rounds, measure)
        order = [peer.name for peer in self._whole]
        self.data["cancels"] = {name: taken[name] for name in order if name in taken}

    def takeover(self, patience: float) -> None:
        """How long a workflow stands still after a kill."""
        print(f"take-over, up to {patience:g} s twice", flush=True)
        self.data["takeover"] = {
            way: takeover.take_over(
                self._whole,
                patience,
                restart=way == "restart",
                failed=lambda peer, error: self._failed("takeover", peer, error),
            )
            for way in ("another", "restart")
        }

    def idle(self) -> None:
        """What idle workers cost."""
        print("idle workers", flush=True)
        self.data["idle"] = idle.rest(
            self._whole,
            self._postgres.url,
            3 if self._quick else 60,
            failed=lambda peer, error: self._failed("idle", peer, error),
        )


def _machine(url: str) -> dict[str, Any]:
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        (version,) = cursor.fetchone() or ("",)
    connection.close()
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "postgresql": version,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    parser.add_argument("--peers", default="all", help="names with commas, all, or none")
    parser.add_argument("--parts", default=",".join(PARTS), help="which of them, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--add", action="store_true", help="rounds to those that are kept")
    parser.add_argument("--patient", action="store_true", help=f"take-overs of {PATIENT:g} s")
    parser.add_argument("--python", default=".venv-bench/bin/python", help="that has the peers")
    parser.add_argument("--out", type=Path, help="where to write; docs/performance")
    options = parser.parse_args()
    if options.out is None and options.peers == "all" and not options.quick:
        options.out = ROOT / "docs" / "performance"
    known = {"all": ",".join(NAMES[len(OURS) :]), "none": ""}
    options.names = _chosen(parser, known.get(options.peers, options.peers), NAMES[len(OURS) :])
    options.parts = _chosen(parser, options.parts, PARTS)
    return options


def _chosen(parser: argparse.ArgumentParser, text: str, known: Sequence[str]) -> list[str]:
    wanted = [one for one in text.split(",") if one]
    if unknown := [one for one in wanted if one not in known]:
        parser.error(f"{', '.join(unknown)} is none of: {', '.join(known)}")
    return [one for one in known if one in wanted]


def main() -> int:
    """Measure, print, write."""
    options = _options()
    rounds = 1 if options.quick else options.rounds
    patience = 5.0 if options.quick else PATIENT if options.patient else PATIENCE
    python = str(Path(options.python).absolute())
    with server(own=True) as postgres:
        comparison = Comparison(postgres, [*OURS, *options.names], python, quick=options.quick)
        for part in options.parts:
            if part == "takeover":
                comparison.takeover(patience)
            elif part == "idle":
                comparison.idle()
            else:
                getattr(comparison, part)(rounds)
    data = comparison.data
    if options.out:
        kept = results.load(options.out / "peers.json")
        data = results.merge(kept, data, add=options.add)
        results.write(data, options.out)
    results.show(data)
    report.conclude(targets.all_of(data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
