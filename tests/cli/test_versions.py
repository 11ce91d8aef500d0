from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli.client import connect
from tests.api.definitions import publishable
from tests.cli.conftest import Command
from tests.processes import Live


@pytest.fixture
def workflow(live: Live, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a workflow that can be published."""
    monkeypatch.setenv("METRONOME_BOOTSTRAP_KEY", live.api_key)
    body = {"name": "n", "definition": publishable("draft")}
    found: str = connect(live.base_url, None).post("metronomes", body=body).data["id"]
    return found


def test_versions_are_saved_compared_published_and_deleted(
    metronome: Command, workflow: str, tmp_path: Path
) -> None:
    def versions(command: str, *arguments: str) -> str:
        done = metronome("versions", command, workflow, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert versions("list").startswith("There is no version yet")
    assert versions("history") == "Nothing was ever published.\n"
    assert versions("save", "--description", "a\x1bb").startswith("Saved v0: ver_")
    file = tmp_path / "other.json"
    other = publishable("other")
    other["nodes"].append({"id": "more", "kind": "note"})
    del other["edges"][1]
    file.write_text(json.dumps({"name": "n", "definition": other}))
    assert versions("save", "--file", str(file)).startswith("Saved v1: ver_")
    assert versions("diff", "v0", "v1").splitlines() == [
        "+ node more",
        "~ node say: config",
        "- edge say -> finish",
    ]
    assert versions("diff", "v1", "v1") == "They are the same.\n"
    assert versions("publish", "v0") == f"Published v0: new runs of {workflow} use it.\n"
    assert versions("publish") == f"Published v0: new runs of {workflow} use it.\n"
    listed = versions("list")
    assert "published" in listed
    assert "\x1b" not in listed
    assert versions("list", "--limit", "1").endswith("There are more: --offset 1\n")
    told = versions("unpublish", "--description", "oops")
    assert told == f"Nothing of {workflow} is published now.\n"
    assert "oops" in versions("history")
    assert versions("delete", "v1").startswith("Deleted ver_")
    assert len(json.loads(versions("list", "--json"))["data"]) == 1


def test_what_is_refused_is_told(metronome: Command, workflow: str) -> None:
    metronome("versions", "publish", workflow)
    done = metronome("versions", "delete", workflow, "v0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "v0 is published" in done.stderr
    done = metronome("versions", "publish", workflow, "v7")
    assert done.stderr == f"Error: there is no version v7 of {workflow}\n"
    faulty = json.dumps({"nodes": [{"id": "ship", "kind": "rocket"}]})
    done = metronome("versions", "save", workflow, "--file", "-", stdin=faulty)
    assert "definition.nodes.0.kind (ship): " in done.stderr
