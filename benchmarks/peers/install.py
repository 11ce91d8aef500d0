"""Make the environment of the peers. ``python -m benchmarks.peers.install DIRECTORY``

It is apart from Metronome's own. What can't be installed is left out: the comparison then says
that it is not available. The newest Python that is there is taken, since one peer needs 3.12.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MINORS = (14, 13, 12)  # of Python 3, the best first; otherwise the one that runs this


def requirements(setup: Path) -> list[str]:
    """The lines of the extra ``bench``."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(setup)
    return parser["options.extras_require"]["bench"].split("\n")[1:]


def _pythons() -> Iterator[str]:
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in MINORS:
        if found := shutil.which(f"python3.{minor}"):
            yield found
        there = [one for one in home.glob(f"3.{minor}.*/bin/python3") if one.exists()]
        yield from map(str, sorted(there, key=_patch, reverse=True))
    yield sys.executable


def _patch(path: Path) -> int:
    return int(re.findall(r"\d+", path.parts[-3])[2])


def _make(directory: Path) -> bool:
    for python in _pythons():
        shutil.rmtree(directory, ignore_errors=True)
        done = subprocess.run(
            [python, "-m", "venv", str(directory)], capture_output=True, check=False
        )
        if done.returncode == 0:
            return True
    return False


def main() -> None:
    """Make it, and install one after the other."""
    directory = Path(sys.argv[1])
    if not _make(directory):
        directory.mkdir(parents=True, exist_ok=True)
        print("No environment could be made for the peers: none is compared.")
        return
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--quiet", "--no-input"]
    pip += ["--disable-pip-version-check", "install"]
    wanted = requirements(Path("setup.cfg"))
    if subprocess.run([*pip, *wanted], capture_output=True, check=False).returncode == 0:
        return
    for one in wanted:
        done = subprocess.run([*pip, one], capture_output=True, text=True, check=False)
        if done.returncode:
            told = done.stderr.strip().splitlines() or [""]
            print(f"{one} can't be installed, and is left out: {told[-1]}")


if __name__ == "__main__":
    main()
