"""Try to break the promises. ``make stress`` or ``python -m benchmarks.stress``

First thousands of cancels at random moments (cancels.py), then rounds in which everything happens
at once (storm.py), until the time is over. A round is of random workflows from a seed, which is
printed; ``--seed`` plays the same ones again. What nobody can repeat is the moments at which things
happen. Exit code 1 where anything is not as promised.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections import Counter

from benchmarks import checks, storm
from benchmarks.cancels import cancels
from benchmarks.checks import Violations
from benchmarks.server import Server, server

ROUND = 40.0  # seconds of storm, before all runs come to their end and are looked at
QUICK = 6.0
_AFTER = 20.0  # seconds that this takes, about


def _rounds(postgres: Server, seed: str, seconds: float, *, quick: bool) -> list[storm.Found]:
    """Round after round until ``seconds`` are over, at least one."""
    rounds: list[storm.Found] = []
    begin = time.monotonic()
    while True:
        left = seconds - (time.monotonic() - begin) - _AFTER
        if rounds and (quick or left < ROUND / 4):
            return rounds
        number = len(rounds)
        listen = "mixed" if quick else storm.LISTENING[number % len(storm.LISTENING)]
        length = QUICK if quick else max(ROUND / 4, min(ROUND, left))
        found = storm.storm(postgres, f"{seed}/{number + 1}", listen, length)
        rounds.append(found)
        broken = sum(one.count for one in found.violations)
        print(
            f"Round {number + 1}, {length:.0f} s, LISTEN {listen}: {found.counts['runs']:,} runs,"
            f" {found.counts['steps']:,} steps, {found.counts['requests']:,} requests;"
            f" violations: {broken}",
            flush=True,
        )


def main() -> int:
    """Both parts; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="for all of it, about (300)")
    parser.add_argument("--cancels", type=int, help="runs to cancel first (3000)")
    parser.add_argument("--kills", type=int, default=6, help="executors to kill meanwhile (6)")
    parser.add_argument("--seed", default=secrets.token_hex(3), help="of the storm's workflows")
    parser.add_argument("--quick", action="store_true", help="150 cancels, and one short round")
    options = parser.parse_args()
    begin = time.monotonic()
    print(f"The seed is {options.seed}.", flush=True)
    found: list[Violations] = []
    told = ""
    count = (150 if options.quick else 3_000) if options.cancels is None else options.cancels
    kills = 2 if options.quick else options.kills
    with server() as postgres:
        if count:
            found, told = cancels(postgres, count, kills)
        left = options.seconds - (time.monotonic() - begin)
        if postgres.embedded is not None:
            rounds = _rounds(postgres, options.seed, left, quick=options.quick)
        else:  # that of somebody else is not ours to be stopped
            with server(own=True) as own:
                rounds = _rounds(own, options.seed, left, quick=options.quick)
    storm.show(rounds)
    print("\nViolations:\n")
    kept = checks.print_all(checks.added_up(found, *(one.violations for one in rounds)))
    total = sum((one.counts for one in rounds), Counter[str]())
    print(f"\nCancels: {told or 'none'}")
    print(
        f"Storm: {len(rounds)} rounds, {total['runs']:,} runs, {total['steps']:,} steps,"
        f" {total['requests']:,} requests, {total['side effects']:,} side effects looked at."
    )
    print("Every promise was kept." if kept else "PROMISES WERE BROKEN.")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
