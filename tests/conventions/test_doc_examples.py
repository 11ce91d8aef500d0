"""What the pages show is there: links, workflows, commands, paths, and the README's program."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from pathlib import Path

import click
import orjson
import pytest
from werkzeug.routing import MapAdapter

from app import create_app
from app.cli import main
from app.config import Settings
from app.domain.graph import check_shape
from app.nodes import REGISTRY
from tests.processes import ROOT, Live

DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.rst")), ROOT / "README.rst", ROOT / "CONTRIBUTING.rst"]
_LINK = re.compile(r"<([^<>`]+\.rst)>`_")
_REQUEST = re.compile(r"``(GET|POST|PUT|PATCH|DELETE)\s+(/v1/[^`?]*)")
_COMMAND = re.compile(r"\bmetronome ([a-z][^#)]*)")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@pytest.fixture(scope="module")
def routes() -> MapAdapter:
    """The paths of the API."""
    nowhere = Settings(database_url="postgresql://nobody@127.0.0.1:1/none", listen=False)
    return create_app(nowhere).url_map.bind("localhost")


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of code in this language, without their indentation."""
    start = rf"^\.\. code-block:: {language}\n\n((?:(?:    .*)?\n)+)"
    return [textwrap.dedent(one) for one in re.findall(start, page.read_text(), re.MULTILINE)]


def commands(page: Path) -> list[list[str]]:
    """The arguments of each ``metronome`` that the page has somebody type."""
    lines = "".join(blocks(page, "console")).replace("\\\n", " ").splitlines()
    typed = [line for line in lines if line.startswith("$ ") and "--help" not in line]
    found = [match for line in typed for match in _COMMAND.findall(line)]
    return [shlex.split(arguments) for arguments in found]


@every_page
def test_links_lead_to_pages(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        assert (page.parent / link).is_file(), link


def test_the_readme_lists_every_page() -> None:
    listed = set(_LINK.findall((ROOT / "README.rst").read_text()))
    assert {f"docs/{page.name}" for page in DOCS.glob("*.rst")} <= listed


@every_page
def test_workflows_can_be_saved(page: Path) -> None:
    for block in blocks(page, "json"):
        read = orjson.loads(block)
        if "nodes" in read and "edges" in read:
            assert check_shape(read, REGISTRY) == []


@every_page
def test_commands_are_there(page: Path) -> None:
    for arguments in commands(page):
        command: click.Command = main
        context = click.Context(main, info_name="metronome")
        while isinstance(command, click.Group):
            _, found, arguments = command.resolve_command(context, arguments)
            assert found is not None
            command = found
            context = click.Context(command, context)
        command.parse_args(context, list(arguments))


@every_page
def test_requests_are_there(page: Path, routes: MapAdapter) -> None:
    for method, path in _REQUEST.findall(page.read_text()):
        assert routes.test(path.strip().replace("...", "x"), method), (method, path)


@every_page
def test_python_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)


def test_the_program_of_the_readme_works(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = blocks(ROOT / "README.rst", "python")
    for told, real in (("mtr_...", live.api_key), ("http://127.0.0.1:8000", live.base_url)):
        assert told in program
        program = program.replace(told, real)
    names: dict[str, object] = {}
    exec(compile(program, "README.rst", "exec"), names)
    assert capsys.readouterr().out.startswith("cancelled [")
    names["client"].close()  # type: ignore[attr-defined]
