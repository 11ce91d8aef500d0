from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.cli.client import KEY_FILE, connect
from app.supervisor.setup import key_file
from tests.cli.conftest import Command
from tests.processes import Live, free_port

SLOW: dict[str, list[dict[str, Any]]] = {
    "nodes": [
        {"id": "start", "kind": "trigger"},
        {"id": "wait", "kind": "delay", "config": {"seconds": 0.9}},
        {"id": "after", "kind": "transform", "config": {"output": 1}},
    ],
    "edges": [
        {"id": "e1", "source": "start", "target": "wait"},
        {"id": "e2", "source": "wait", "target": "after"},
    ],
}


@pytest.fixture
def workflow(live: Live) -> str:
    """The id of a workflow whose second node takes most of a second."""
    body = {"name": "Slow", "definition": SLOW}
    found: str = connect(live.base_url, None).post("metronomes", body=body).data["id"]
    return found


@pytest.fixture(autouse=True)
def _beside_the_server(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings for the client that the tests themselves use."""
    monkeypatch.setenv("METRONOME_BOOTSTRAP_KEY", live.api_key)


def queue(live: Live, metronome_id: str, **body: Any) -> str:
    answer = connect(live.base_url, None).post("metronomes", metronome_id, "runs", body=body)
    return str(answer.data["id"])


def test_a_definition_in_a_file_becomes_a_workflow(metronome: Command, tmp_path: Path) -> None:
    file = tmp_path / "greeting.json"
    file.write_text(json.dumps(SLOW))
    created = metronome("metronomes", "create", "--file", str(file))
    assert created.returncode == 0, created.stderr
    assert created.stdout.startswith("Created met_")
    assert created.stdout.endswith(": greeting\n")
    assert "greeting" in metronome("metronomes", "list").stdout


def test_a_whole_workflow_is_read_from_standard_input(metronome: Command) -> None:
    whole = json.dumps({"name": "One", "description": "words", "definition": SLOW})
    done = metronome("metronomes", "create", "--file", "-", "--name", "Two", "--json", stdin=whole)
    created = json.loads(done.stdout)["data"]
    assert (created["name"], created["description"]) == ("Two", "words")
    assert created["definition"] == SLOW
    listed = json.loads(metronome("metronomes", "list", "--json").stdout)
    assert [one["id"] for one in listed["data"]] == [created["id"]]


def test_each_fault_of_a_definition_is_told_with_its_field_and_node(metronome: Command) -> None:
    nodes = [{"id": "a", "kind": "trigger"}, {"id": "ship", "kind": "rocket"}]
    faulty = {"nodes": nodes, "edges": [{"source": "a", "target": "b"}]}
    done = metronome("metronomes", "create", "--file", "-", "--name", "x", stdin=json.dumps(faulty))
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "Error: the definition is not valid:"
    assert any(line.startswith("  definition.nodes.1.kind (ship): ") for line in lines)
    assert any(line.startswith("  definition.edges.0.target: ") for line in lines)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"nodes": [],}', "<stdin> is not JSON: "),
        ("[]", "must hold a JSON object"),
        ('{"name": "x"}', "neither nodes nor a definition"),
        ('{"definition": {"nodes": []}, "nmae": 1}', "nmae: there is no such field"),
    ],
)
def test_a_file_that_is_no_workflow_is_refused(metronome: Command, content: str, said: str) -> None:
    done = metronome("metronomes", "create", "--file", "-", "--name", "x", stdin=content)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["metronomes", "create", "--file", "no/such/file"], "No such file"),
        (["runs", "list"], "Missing option '--metronome'"),
        (["metronomes", "list", "--url", "127.0.0.1"], "is no URL"),
    ],
)
def test_a_usage_error_ends_with_2(metronome: Command, arguments: list[str], said: str) -> None:
    done = metronome(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_without_a_server_one_line_says_what_to_do(metronome: Command) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = metronome("metronomes", "list", METRONOME_URL=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: nothing listens at {url}; start the server with: make run\n"


def test_a_refused_key_is_told_with_its_source(metronome: Command, tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text("mtr_wrong\n")
    home = {"METRONOME_BOOTSTRAP_KEY": "", "METRONOME_HOME": str(tmp_path)}
    for arguments, variables, source in (
        (["--api-key", "wrong"], {}, "--api-key"),
        ([], {"METRONOME_API_KEY": "wrong"}, "METRONOME_API_KEY"),
        ([], home, str(tmp_path / KEY_FILE)),
    ):
        done = metronome("metronomes", "list", *arguments, **variables)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"The key was that of {source}.\n" in done.stderr


def test_the_key_that_the_server_keeps_is_found(
    metronome: Command, live: Live, tmp_path: Path
) -> None:
    home = {"METRONOME_BOOTSTRAP_KEY": "", "METRONOME_HOME": str(tmp_path)}
    without = metronome("metronomes", "list", **home)
    assert without.returncode == 1
    assert "There was no key: use --api-key or METRONOME_API_KEY" in without.stderr
    assert key_file(tmp_path) == tmp_path / KEY_FILE
    key_file(tmp_path).write_text(f"{live.api_key}\n")
    assert metronome("metronomes", "list", **home).returncode == 0


def test_the_key_that_the_server_keeps_goes_to_no_other_host() -> None:
    assert connect("http://127.0.0.1:1", None).key_source == "METRONOME_BOOTSTRAP_KEY"
    assert connect("http://metronome.example", None).key_source is None


def test_an_unknown_run_is_said_to_be_unknown(metronome: Command, workflow: str) -> None:
    asked = ("get", "steps", "children")
    done_to_it = ("cancel", "pause", "resume", "retry", "approve", "reject")
    for action in (*asked, *done_to_it):
        done = metronome("runs", action, workflow, "run_0")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "Error: metronome or run not found\n"


def test_runs_are_listed_by_status_and_page(metronome: Command, live: Live, workflow: str) -> None:
    assert metronome("runs", "list", "--metronome", workflow).stdout == "There is no run yet.\n"
    first, second = queue(live, workflow), queue(live, workflow)
    page = metronome("runs", "list", "--metronome", workflow, "--limit", "1").stdout
    assert second in page
    assert first not in page
    assert "There are more: --offset 1" in page
    arguments = ["--status", "running", "--status", "queued", "--json"]
    found = json.loads(metronome("runs", "list", "--metronome", workflow, *arguments).stdout)
    assert [run["id"] for run in found["data"]] == [second, first]


def test_cancel_says_what_it_did(metronome: Command, live: Live, workflow: str) -> None:
    run = queue(live, workflow)
    done = metronome("runs", "cancel", workflow, run)
    assert done.stdout == (
        f"Cancelled {run}: nothing of it starts any more.\nNo node was in flight.\n"
    )
    again = metronome("runs", "cancel", workflow, run).stdout
    assert again.startswith("The run had been cancelled before (")
    answer = json.loads(metronome("runs", "cancel", workflow, run, "--json").stdout)
    assert answer["data"]["status"] == "cancelled"


def test_cancel_names_what_is_in_flight_and_the_trace_shows_it(
    metronome: Command, live: Live, silent_url: str, wait_for: Callable[..., Any]
) -> None:
    live.start_executor()
    live.wait_until_ready()
    api = connect(live.base_url, None)
    waits = {"id": "wait", "kind": "http", "config": {"url": silent_url, "timeoutMs": 3_600_000}}
    definition = {**SLOW, "nodes": [SLOW["nodes"][0], waits, SLOW["nodes"][2]]}
    workflow = api.post("metronomes", body={"name": "Waits", "definition": definition}).data["id"]
    run = queue(live, workflow, input={"text": "\x1b[31mred"})

    def steps() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = api.get("metronomes", workflow, "runs", run, "steps").data
        return found

    wait_for(lambda: len(steps()) == 2)
    cancelled = metronome("runs", "cancel", workflow, run)
    assert cancelled.stdout == (
        f"Cancelled {run}: nothing of it starts any more.\n"
        "In flight was: wait. Only that may still have effects.\n"
    )
    wait_for(lambda: api.get("metronomes", workflow, "runs", run).data["lockedBy"] is None)

    shown = metronome("runs", "steps", workflow, run).stdout
    head, _, start, wait, line = shown.splitlines()[:5]
    assert head == f"{run}  cancelled"
    assert start.split()[:5] == ["1", "start", "trigger", "completed", "1"]
    assert wait.split()[:5] == ["2", "wait", "http", "cancelled", "1"]
    assert " cancel " in line
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert json.loads(metronome("runs", "steps", workflow, run, "--json").stdout)["data"] == steps()

    details = metronome("runs", "get", workflow, run).stdout
    assert "status     cancelled\n" in details
    assert "\x1b" not in details
