from __future__ import annotations

import json

import pytest

from app.cli.client import connect
from app.db import Database
from tests.api import states
from tests.cli.conftest import Command
from tests.processes import Live

DEFINITION = {"nodes": [{"id": "start", "kind": "trigger"}], "edges": []}


@pytest.fixture
def run(live: Live, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of a workflow and of a queued run of it."""
    monkeypatch.setenv("METRONOME_BOOTSTRAP_KEY", live.api_key)
    api = connect(live.base_url, None)
    metronome = api.post("metronomes", body={"name": "n", "definition": DEFINITION}).data["id"]
    return [metronome, api.post("metronomes", metronome, "runs").data["id"]]


def path(run: list[str]) -> str:
    """The path of a run, as the tests of the API have it."""
    return f"metronomes/{run[0]}/runs/{run[1]}"


def waiting(db: Database, run: list[str]) -> None:
    """Let the run wait for an approval."""
    states.change(
        db, path(run), "status = 'waiting_approval', due_at = 'infinity', started_at = now()"
    )
    asked = """'{"title": "Ship\\u001b it?", "message": "All of it."}'"""
    states.put_step(db, path(run), 1, "waiting_approval", node_id="'ask'", output=asked)


def test_a_run_is_paused_and_resumed(metronome: Command, run: list[str]) -> None:
    done = metronome("runs", "pause", *run)
    assert done.stdout == (
        f"Paused {run[1]}: nothing of it starts until it is resumed.\nNo node was in flight.\n"
    )
    again = metronome("runs", "pause", *run).stdout
    assert again == "The run had been paused before; this pause changed nothing.\n"
    assert metronome("runs", "resume", *run).stdout == f"Resumed {run[1]}.\n"
    again = metronome("runs", "resume", *run).stdout
    assert again == f"{run[1]} is queued: it was not paused.\n"
    answer = json.loads(metronome("runs", "pause", *run, "--json").stdout)
    assert answer["data"]["status"] == "paused"


def test_what_has_ended_is_said_to_have_ended(metronome: Command, run: list[str]) -> None:
    metronome("runs", "cancel", *run)
    assert metronome("runs", "pause", *run).stdout.startswith("The run had been cancelled before (")
    done = metronome("runs", "resume", *run)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: the run is cancelled, which is final")


def test_in_flight_nodes_of_runs_below_are_named(
    metronome: Command, run: list[str], db: Database
) -> None:
    child = states.nested(db, path(run), "running", held="true", organization_id="'default'")
    states.put_step(db, child, 1, "running", lease_token="'t'", node_id="'pack it'")
    below = child.rpartition("/")[2]
    assert metronome("runs", "pause", *run).stdout.splitlines()[1] == (
        f"In flight was: {below}/pack it. Only that may still have effects."
    )
    assert below in metronome("runs", "children", *run).stdout
    assert "nested runs  1\n" in metronome("runs", "get", *run).stdout
    shown = metronome("runs", "children", *run, "--offset", "1").stdout
    assert shown == "There are no such runs.\n"
    other = metronome("runs", "children", child.split("/")[1], below).stdout
    assert other in ("It has started no run.\n", "")  # the workflow may be another's


def test_a_run_is_retried(metronome: Command, run: list[str]) -> None:
    done = metronome("runs", "retry", *run)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the run is queued; only runs that have failed" in done.stderr
    metronome("runs", "cancel", *run)
    done = metronome("runs", "retry", *run, "--from", "failed")
    assert done.stdout == f"Queued {run[1]} once more: attempt 1 of 1.\n"


def test_a_run_in_doubt_tells_the_option_that_it_needs(
    metronome: Command, run: list[str], db: Database
) -> None:
    metronome("runs", "pause", *run)
    states.change(db, path(run), "in_doubt = true, error = 'in doubt: the node ship may have run'")
    assert "in doubt   a node may have run" in metronome("runs", "get", *run).stdout
    done = metronome("runs", "resume", *run)
    assert done.returncode == 1
    assert "the node ship may have run" in done.stderr
    assert "--confirm-in-doubt-replay" in done.stderr
    confirmed = metronome("runs", "resume", *run, "--confirm-in-doubt-replay")
    assert confirmed.stdout == f"Resumed {run[1]}.\n"


def test_what_waits_is_listed_and_decided(metronome: Command, run: list[str], db: Database) -> None:
    assert metronome("approvals", "list").stdout == "Nothing waits for a decision.\n"
    waiting(db, run)
    assert "waits for  ask (approval)\n" in metronome("runs", "get", *run).stdout
    title, message, node, ids, hint = metronome("approvals", "list").stdout.splitlines()
    assert (title, message) == ("Ship\ufffd it?", "  All of it.")
    assert node.startswith("  node ask, asked ")
    assert ids.split() == run
    assert hint.startswith("Decide: metronome runs approve")
    listed = json.loads(metronome("approvals", "list", "--json").stdout)["data"]
    assert [one["runId"] for one in listed] == run[1:]

    done = metronome("runs", "reject", *run, "--comment", "not yet", "--node", "ask")

    assert done.stdout == f"Rejected {run[1]}: it goes on.\n"
    late = metronome("runs", "approve", *run)
    assert (late.returncode, late.stdout) == (1, "")
    assert "somebody has decided this before" in late.stderr


def test_a_decision_in_a_pause_says_so(metronome: Command, run: list[str], db: Database) -> None:
    waiting(db, run)
    metronome("runs", "pause", *run)
    done = metronome("runs", "approve", *run)
    assert done.stdout == f"Approved {run[1]}: it is paused until it is resumed.\n"


@pytest.mark.parametrize(
    "arguments",
    [["runs", "retry", "met", "run", "--from", "middle"], ["approvals", "list", "--limit", "0"]],
)
def test_a_usage_error_ends_with_2(metronome: Command, arguments: list[str]) -> None:
    assert metronome(*arguments).returncode == 2
