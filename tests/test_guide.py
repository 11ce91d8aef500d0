"""The guide's examples, run against a live server: each of its areas is a test of its own."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from computer_agents import ComputerAgentsClient

from tests.processes import ROOT, Live, environment

PAGE = ROOT / "docs" / "guide.rst"
_TITLE = re.compile(r"^(\w.*)\n-+\n", re.MULTILINE)
_NEEDS_EXECUTOR = re.compile(r"\b(?:until|wait_for)\(")


def sections() -> dict[str, doctest.DocTest]:
    """The examples of the page by the title that they stand under; those without any are left out.

    The examples know their lines, so that a failure tells where in the page it is.
    """
    text = PAGE.read_text()
    titles = list(_TITLE.finditer(text))
    ends = [title.start() for title in titles[1:]] + [len(text)]
    parser, found = doctest.DocTestParser(), {}
    for title, end in zip(titles, ends, strict=True):
        line = text.count("\n", 0, title.start())
        part = text[title.start() : end]
        test = parser.get_doctest(part, {}, title[1], str(PAGE), line)
        if test.examples:
            found[title[1]] = test
    return found


BEFORE, *AREAS = sections().values()


@pytest.fixture
def settled(live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    """A server, and what the guide takes from a reader's terminal: its key, and the command."""
    command = tmp_path / "bin" / "metronome"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m app.cli "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    given = {"METRONOME_URL": live.base_url, "METRONOME_API_KEY": live.api_key, "PATH": path}
    for name, value in environment(live.settings, **given).items():
        monkeypatch.setenv(name, value)
    return live


def run(test: doctest.DocTest, names: dict[str, Any]) -> str:
    """Run examples that share ``names``; what was not as the page says, or an empty text."""
    told: list[str] = []
    test.globs = names
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.REPORT_ONLY_FIRST_FAILURE)
    runner.run(test, out=told.append, clear_globs=False)
    return "".join(told)


@contextmanager
def closing(names: dict[str, Any]) -> Iterator[None]:
    """Close the clients among ``names`` afterwards."""
    try:
        yield
    finally:
        for value in names.values():
            if isinstance(value, ComputerAgentsClient | httpx.Client):
                value.close()


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.name)
def test_the_guide_is_true(area: doctest.DocTest, settled: Live) -> None:
    if any(_NEEDS_EXECUTOR.search(example.source) for example in area.examples):
        settled.start_executor()
    names: dict[str, Any] = {}
    with closing(names):
        assert run(BEFORE, names) == ""
        failed = run(area, names)
    assert not failed, f"{failed}\n" + "".join(one.logs()[-2000:] for one in settled.executors)


def test_the_whole_page_runs_as_it_says(settled: Live) -> None:
    settled.start_executor()
    command = "python -m doctest -o ELLIPSIS docs/guide.rst"
    assert f"``{command}``" in " ".join(PAGE.read_text().split())
    arguments = [sys.executable, *shlex.split(command)[1:]]
    found = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_the_guide_tells_of_every_area() -> None:
    told = " ".join(test.name.lower() for test in AREAS)
    for area in ("keys", "workflows", "versions", "runs", "stopping", "triggers", "schedules"):
        assert area in told
    for area in ("trying", "limits", "audit", "errors"):
        assert area in told
