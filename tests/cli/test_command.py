from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from app.cli import COMMANDS, main
from tests.processes import ROOT


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_loaded(name: str) -> None:
    module, attribute, _ = COMMANDS[name]
    assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)


def test_help_names_every_command_and_imports_none() -> None:
    code = "from app.cli import main; main(['--help'], standalone_mode=False); import sys;"
    code += "print(*(m for m in ('flask', 'sqlalchemy', 'rich') if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == ""
    assert {line.split()[0] for line in lines if line.startswith("  ")} >= set(COMMANDS)


def test_an_unknown_command_is_refused() -> None:
    result = CliRunner().invoke(main, ["dance"])
    assert result.exit_code == 2
    assert "No such command 'dance'" in result.output


def test_a_command_that_needs_a_database_says_so(tmp_path: Path) -> None:
    env = {"METRONOME_HOME": str(tmp_path), "DATABASE_URL": ""}
    result = CliRunner().invoke(main, ["migrate"], env=env)
    assert result.exit_code == 1
    assert "DATABASE_URL is not set" in result.output


def test_migrate_says_what_it_did(fresh_database_url: str) -> None:
    env = {"DATABASE_URL": fresh_database_url}
    assert "migrated to " in CliRunner().invoke(main, ["migrate"], env=env).output
    assert "already at " in CliRunner().invoke(main, ["migrate"], env=env).output


@pytest.mark.parametrize("command", ["run", "executor"])
def test_a_file_of_connectors_with_a_fault_is_refused_at_the_start(
    tmp_path: Path, command: str
) -> None:
    file = tmp_path / "connectors.toml"
    file.write_text('[connectors.action]\nurl = "http://x"\nsecrets = "hidden"\n')
    env = {"METRONOME_CONNECTORS": str(file), "DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    result = CliRunner().invoke(main, [command], env={**env, "METRONOME_HOME": str(tmp_path)})
    assert result.exit_code == 1
    assert f"{file}: [connectors.action] secrets is unknown: did you mean secret?" in result.output
    assert "hidden" not in result.output
