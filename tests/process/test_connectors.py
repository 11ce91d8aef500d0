"""Remote work with everything as a process of its own: the API, an executor, a connector."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from tests.connectors import SECRET, Example
from tests.processes import Live, wait_for


def send(live: Live, method: str, path: str, body: Any = None) -> Any:
    """The data of the API's answer."""
    made = urllib.request.Request(
        f"{live.base_url}/v1/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {live.api_key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(made, timeout=30) as answer:
        return json.load(answer)["data"]


def start(live: Live, tmp_path: Path, example: Example, **config: Any) -> str:
    """The path of a run whose action the example does."""
    file = tmp_path / "connectors.toml"
    file.write_text(f'[connectors.action]\nurl = "{example.url}"\nsecret = "{SECRET}"\n')
    live.start_executor(METRONOME_CONNECTORS=str(file))
    live.wait_until_ready()
    definition = {
        "nodes": [
            {"id": "start", "kind": "trigger"},
            {"id": "ask", "kind": "action", "subtype": "start_thread", "config": config},
        ],
        "edges": [{"id": "e", "source": "start", "target": "ask"}],
    }
    metronome = send(live, "POST", "metronomes", {"name": "remote", "definition": definition})
    runs = f"metronomes/{metronome['id']}/runs"
    return f"{runs}/{send(live, 'POST', runs, {})['id']}"


def test_a_connector_of_the_settings_file_does_the_work_and_calls_back(
    live: Live, tmp_path: Path, example: Example
) -> None:
    path = start(live, tmp_path, example, message="hello", seconds=1)
    run = wait_for(
        lambda: (run := send(live, "GET", path))["status"] == "completed" and run,
        message=lambda: f"{send(live, 'GET', path)} {example.logs()}",
    )
    assert run["output"] == {"text": "hello"}
    assert SECRET not in live.executors[0].logs()


def test_a_cancel_reaches_the_connector(live: Live, tmp_path: Path, example: Example) -> None:
    path = start(live, tmp_path, example, seconds=600)
    wait_for(lambda: example.said("started"), message=example.logs)
    assert send(live, "POST", f"{path}/cancel", {})["status"] == "cancelled"
    wait_for(lambda: example.said("stopped"), message=example.logs)
    assert [step["status"] for step in send(live, "GET", f"{path}/steps")] == [
        "completed",
        "cancelled",
    ]
