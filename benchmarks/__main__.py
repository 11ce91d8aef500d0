"""Measure everything: ``make bench``, or ``python -m benchmarks [--quick] [--only steps,peers]``

One program after the other. What each prints is kept in docs/performance, as NAME.txt and as
NAME.json, but not with ``--quick``. Exit code 1 where one of them failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT

PROGRAMS = ("peers", "steps", "scaling", "http", "growth", "cancel")
OUT = ROOT / "docs" / "performance"


def run(name: str, *, quick: bool) -> bool:
    """Run one program; whether it went well. Its output is shown as it comes, and kept."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    if quick:
        command.append("--quick")
    elif name != "peers":  # which keeps what it measured by itself
        command += ["--json", str(OUT / f"{name}.json")]
    print(f"\n=== {name} ===", flush=True)
    told: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as program:
        for line in program.stdout or ():
            print(line, end="", flush=True)
            told.append(line)
    if program.returncode == 0 and not quick:
        _keep(OUT / f"{name}.txt", told)
    return program.returncode == 0


def _keep(path: Path, told: list[str]) -> None:
    """The tables, without what was said on the way to them."""
    first = next((n for n, line in enumerate(told) if not line.strip()), 0)
    path.write_text("".join(told[first:]).strip() + "\n")


def main() -> int:
    """Run them all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only show that they work")
    parser.add_argument("--only", default=",".join(PROGRAMS), help="which of them, with commas")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in PROGRAMS]:
        parser.error(f"{', '.join(unknown)} is none of: {', '.join(PROGRAMS)}")
    if not options.quick:
        OUT.mkdir(parents=True, exist_ok=True)
    failed = [name for name in names if not run(name, quick=options.quick)]
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
