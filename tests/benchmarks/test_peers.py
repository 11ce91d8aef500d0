"""The comparison with peers, as far as it can be tried without them: what it makes of figures."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.peers import cancels, install, pictures, results, tables, targets
from benchmarks.peers.__main__ import Comparison
from benchmarks.peers.peer import NAMES, OURS, Answer, Mark
from benchmarks.server import Server
from tests.processes import ROOT


def _told(title: str, *, durable: bool) -> dict[str, Any]:
    settings = {name: {"places": 8} for name in ("default", "eight", "best", "alone")}
    return {
        "title": title,
        "version": "1",
        "python": "3.12",
        "durable": durable,
        "settings": settings,
    }


def _cancelled(**changes: list[Any]) -> dict[str, list[Any]]:
    good: dict[str, list[Any]] = {
        "call": [2.0],
        "stop": [9.0],
        "late": [0],
        "named": [0],
        "beyond": [0.0],
        "cut": [False],
        "lost": [0],
    }
    return {**good, **changes}


DATA: dict[str, Any] = {
    "machine": {"cores": 2, "date": "2026-11-30", "postgresql": "18.6", "python": "3.11.7"},
    "peers": {
        "metronome": _told("Metronome", durable=True),
        "builtin": _told("Metronome, built-in nodes", durable=True),
        "dbos": _told("DBOS", durable=True),
        "oban": _told("Oban", durable=False),
        "absurd": {"unavailable": "it can't be had"},
    },
    "throughput": {
        profile: {
            "metronome": [3000.0, 3200.0],
            "builtin": [9000.0, 9000.0],
            "dbos": [300.0, 400.0],
            "oban": [1000.0, 1000.0],
        }
        for profile in ("eight", "best", "alone")
    },
    "limit": {"1": [1000.0, 1000.0], "8": [2000.0, 2000.0], "32": [1500.0, 1600.0]},
    "latency": {"metronome": [2.0, 3.0], "dbos": [500.0, 900.0], "oban": [2.5]},
    "cancels": {
        "metronome": _cancelled(),
        "dbos": _cancelled(late=[1], lost=[1]),
        "oban": _cancelled(lost=[None]),
    },
    "takeover": {
        "another": {
            "metronome": {"seconds": 1.5, "patience": 40.0, "again": 0, "finished": 3},
            "dbos": {"seconds": None, "patience": 40.0, "again": None},
        },
        "restart": {"dbos": {"seconds": 1.5, "patience": 40.0, "again": 0, "finished": 3}},
    },
    "idle": {"metronome": {"cpu_percent": 0.1, "transactions_a_minute": 18.0, "rss_mb": 60.0}},
    "failures": {"idle": {"dbos": "it broke"}},
}


def _row(title: str, name: str) -> list[str]:
    (table,) = (one for one in tables.all_of(DATA) if one.title.startswith(title))
    (row,) = (list(row) for row in table.rows if name in row[:2])
    return row


def test_ratios_are_taken_round_by_round() -> None:
    ratios = "9.00x / 26.25x"  # of 10x and 8x; of 30x and 22.5x
    assert _row("Steps a second", "DBOS")[2:4] == ["350", ratios]


def test_a_job_queue_has_jobs_and_no_workflows() -> None:
    assert _row("Steps a second", "DBOS")[1::7] == ["steps", "35.0"]
    assert _row("Steps a second", "Oban")[1::7] == ["jobs", ""]
    assert _row("Cancels", "Oban")[-1] == "no record of steps"


def test_the_limit_stands_under_the_profile_with_as_many_threads() -> None:
    row = _row("Steps a second", "bare psycopg2, 8 threads")
    assert row[2:] == ["2,000", "1.55x / 4.50x", "", "", "", "", ""]


def test_what_did_not_happen_is_said() -> None:
    assert _row("kill -9", "DBOS")[1] == "not within 40 s"
    assert _row("kill -9", "Metronome")[3] == "failed"
    assert "it can't be had" in _row("Versions", "absurd")[3]
    assert _row("What could not be measured", "DBOS")[-1] == "it broke"


def test_targets_are_judged() -> None:
    met = {figure.name: figure.met for figure in targets.all_of(DATA)}
    assert met["steps/s, function nodes, 8 at a time, against DBOS"]
    assert not met["steps/s, function nodes, best, against DBOS"]
    assert met["steps/s, built-in nodes, best, against DBOS"]
    assert met["steps/s, function nodes, 8 at a time, against bare psycopg2, 8 threads"]
    assert not met["steps/s, function nodes, best, against bare psycopg2, 32 threads"]
    assert met["take-over by another executor"]
    broken = copy.deepcopy(DATA)
    broken["cancels"]["metronome"] = _cancelled(late=[2], lost=[1], beyond=[20.0])
    missed = {figure.name for figure in targets.all_of(broken) if figure.met is False}
    assert {
        "cancels with a late start",
        "cancels that lost finished work",
        "from the end of the step in flight to the stop, p99",
    } <= missed


@pytest.mark.parametrize("part", ["throughput", "latency", "cancels", "takeover", "idle"])
def test_any_part_alone_makes_its_tables_and_charts(part: str) -> None:
    alone = {name: DATA[name] for name in ("machine", "peers", part)}
    (picture,) = pictures.all_of(alone).values()
    ElementTree.fromstring(picture)
    assert len(tables.all_of(alone)) == 2
    assert targets.all_of(alone)


def test_only_what_is_between_the_marks_is_written_anew(tmp_path: Path) -> None:
    page = tmp_path / "performance.rst"
    page.write_text(f"before\n\n{results.BEGIN}\n\nold\n\n{results.END}\n\nbehind\n")
    for _ in range(2):  # the second time changes nothing
        results.write(DATA, tmp_path / "performance")
        text = page.read_text()
        assert text.startswith(f"before\n\n{results.BEGIN}\n\n")
        assert text.endswith(f"\n{results.END}\n\nbehind\n")
        assert "old" not in text
        assert "2026-11-30: 2 cores, PostgreSQL 18.6" in text
        assert text.count(".. image:: performance/steps.svg") == 1
    assert {path.name for path in (tmp_path / "performance").iterdir()} == {
        "peers.json", "steps.svg", "latency.svg", "cancel.svg", "takeover.svg", "idle.svg",
    }  # fmt: skip
    assert results.load(tmp_path / "performance" / "peers.json") == DATA


def test_a_part_replaces_what_was_kept_of_it_or_adds_rounds() -> None:
    new = {"latency": {"metronome": [4.0]}, "limit": {"8": [1.0]}}
    assert results.merge(DATA, new, add=False) == {**DATA, **new}
    idle = {"peers": {}, "failures": {"idle": {"oban": "it broke too"}}, "idle": {}}
    assert results.merge(DATA, idle, add=False) == {**DATA, **idle, "peers": DATA["peers"]}
    assert results.merge(DATA, {"idle": {}}, add=False)["failures"] == {}
    added = results.merge(DATA, new, add=True)
    assert added["latency"] == {**DATA["latency"], "metronome": [2.0, 3.0, 4.0]}
    assert added["limit"] == {**DATA["limit"], "8": [2000.0, 2000.0, 1.0]}
    assert added["cancels"] == DATA["cancels"]


def _mark(event: str, number: int, at: float) -> Mark:
    return Mark(at, 1, event, "n0", number)


def test_late_and_lost_steps_of_a_cancel_are_seen() -> None:
    answer = Answer(None, 0.010, 0.012)
    marks = [_mark("start", 0, 0.0), _mark("end", 0, 0.020)]
    good = cancels.judged(marks, answer, [0])
    assert (good.late, good.lost, good.beyond) == (0, 0, 0.0)
    assert good.stop == pytest.approx(8.0)
    lost = cancels.judged(marks, answer, [])
    assert (lost.late, lost.lost) == (0, 1)
    marks += [_mark("start", 1, 0.021), _mark("cut", 1, 0.031)]
    late = cancels.judged(marks, answer, None)
    assert (late.late, late.lost, late.cut) == (1, None, True)
    assert late.beyond == pytest.approx(11.0)
    named = cancels.judged(marks, Answer([1], 0.010, 0.012), None)
    assert (named.late, named.named, named.beyond) == (0, 1, 0.0)


def test_a_peer_that_is_not_there_is_left_out(
    server_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(server_url, tmp_path, None)
    comparison = Comparison(server, ["oban"], sys.executable, quick=True)
    assert "No module named" in comparison.data["peers"]["oban"]["unavailable"]
    assert "oban is not available" in capsys.readouterr().out
    comparison = Comparison(server, ["dbos"], str(tmp_path / "none"), quick=True)
    assert "No such file" in comparison.data["peers"]["dbos"]["unavailable"]


def test_every_peer_has_a_file_and_a_pinned_version() -> None:
    wanted = " ".join(install.requirements(ROOT / "setup.cfg"))
    for name in NAMES[len(OURS) :]:
        assert (ROOT / "benchmarks" / "peers" / f"with_{name}.py").exists()
        assert f"{name}" in wanted
    assert all("==" in one for one in install.requirements(ROOT / "setup.cfg"))


def test_what_is_kept_is_what_the_page_shows() -> None:
    directory = ROOT / "docs" / "performance"
    kept = json.loads((directory / "peers.json").read_text())
    page = (ROOT / "docs" / "performance.rst").read_text()
    shown = page.partition(results.BEGIN)[2].partition(results.END)[0]
    assert shown.strip() == results.restructured(kept, directory.name).strip()
