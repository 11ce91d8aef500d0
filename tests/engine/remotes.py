"""Nodes that connectors do, and what their remote sides do in the engine's tests."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from app.domain.lifecycle import RUNNING
from app.domain.models import Run, Step
from tests.connectors import Receiver
from tests.engine.conftest import Lab, node
from tests.processes import wait_for


def works_on(receiver: Receiver) -> None:
    """Have the remote side answer 202 to work, and leave the rest to the test."""
    receiver.answer = lambda event: (
        202 if event["type"] == "node.dispatched" else 200,
        b'{"job": 7}',
    )


def action(id: str = "ask", **config: Any) -> dict[str, Any]:
    """A node that an agent does."""
    return {**node("action", id, **config), "subtype": "start_thread"}


def waiting(lab: Lab, run: Run, node_id: str = "ask") -> Step:
    """The step of the node, once it waits for its callback."""

    def found() -> Step | None:
        for step in lab.trace(run):
            if step.node_id == node_id and (step.metadata or {}).get("waitsFor") == "callback":
                return step if step.status == RUNNING else None
        return None

    return wait_for(found, message=lambda: str(lab.trace(run)))


def order(receiver: Receiver, number: int = 0) -> dict[str, Any]:
    """The work that the remote side was given, once it has come."""
    return wait_for(lambda: receiver.of("node.dispatched")[number:])[0]


def call_back(event: dict[str, Any], verb: str, **body: Any) -> str:
    """Call back; the outcome, or "refused"."""
    callback = event["callback"]
    made = urllib.request.Request(
        f"{callback['url']}/{verb}",
        data=json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {callback['token']}",
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(made, timeout=30) as answer:
            return str(answer.headers.get("Callback-Outcome", "heard"))
    except urllib.error.HTTPError as error:
        error.close()
        return "refused"
