"""The benchmarks work: each is run once, with tiny numbers and no eye on the time it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import PATIENCE, ROOT


def _quick(name: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", *options],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "DATABASE_URL"},
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("steps", ["steps/s, 8 threads", "start of a run, p50", "idle executor, memory"]),
        ("http", ["cancels a second, of GET /healthz", "round trips of a request"]),
        ("growth", ["cancel, recent: 20,000 runs to 200", "bytes of a row of steps"]),
        ("cancel", ["http node ends", "delay node ends"]),
    ],
)
def test_a_benchmark_prints_its_figures_and_keeps_them(
    name: str, figures: list[str], tmp_path: Path
) -> None:
    kept = tmp_path / "kept.json"
    told = _quick(name, "--json", str(kept)).partition("Figures")[2]
    assert all(figure in told for figure in figures), told
    assert json.loads(kept.read_text())[name]
    if name in ("http", "growth"):
        assert kept.with_suffix(".svg").read_text().startswith("<svg")


@pytest.mark.parametrize("name", ["stress", "crash"])
def test_every_promise_is_kept_under_a_little_stress(name: str) -> None:
    assert "Every promise was kept." in _quick(name)
