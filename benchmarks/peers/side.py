"""The process of a peer: ``python -m benchmarks.peers.with_<name> COMMAND``

The database's URL is in PEERS_URL. ``describe`` prints what is compared, ``prepare`` installs what
the peer needs in the database. ``worker PROFILE INSTANCE`` works until it is killed; in place of a
profile it takes settings as JSON, to try them. ``client`` reads a request a line, ``{"call": ...,
"arguments": [...]}``, and answers each with the value, or the error, and the times at which the
call began and ended: the library's own time, without ours.

Only the standard library is imported here.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

URL = "PEERS_URL"
POLL_SECONDS = 0.01

Settings = Mapping[str, Any]


class Client(Protocol):
    """What is asked of a peer from outside of its worker."""

    def enqueue(self, kind: str, tags: Sequence[str]) -> list[str]:
        """Queue a workflow for each tag, in one transaction where the peer can; their ids."""

    def cancel(self, workflow: str) -> list[int] | None:
        """Cancel the workflow of that id; the steps that the answer names as still in flight."""

    def left(self) -> bool:
        """Whether any workflow has not ended."""

    def finished(self) -> int:
        """How many steps (of a job queue: jobs) are recorded as finished."""

    def recorded(self, workflow: str) -> list[int] | None:
        """The numbers of its steps that are recorded as finished; None where there is no record."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer.

    ``settings`` has these profiles: ``default`` (as it comes, eight at a time), ``eight`` (as fast
    as its documentation lets it be, eight at a time), ``best`` (the same without that limit) and
    ``alone`` (one at a time).
    """

    package: str
    title: str
    durable: bool  # steps are recorded; otherwise a job is what counts as a step
    settings: Mapping[str, Settings]
    prepare: Callable[[str], None]
    work: Callable[[str, Settings, str], None]  # URL, settings, the instance's name
    client: Callable[[str], Client]


def main(peer: Peer) -> None:
    """Do what the command line says."""
    command, *arguments = sys.argv[1:]
    url = os.environ.get(URL, "")
    if command == "describe":
        print(json.dumps(_described(peer)))
    elif command == "prepare":
        peer.prepare(url)
    elif command == "worker":
        settings = peer.settings.get(arguments[0]) or json.loads(arguments[0])
        peer.work(url, settings, arguments[1])
    elif command == "client":
        _serve(peer.client, url)


def _described(peer: Peer) -> dict[str, Any]:
    return {
        "title": peer.title,
        "version": importlib.metadata.version(peer.package),
        "python": ".".join(map(str, sys.version_info[:2])),
        "durable": peer.durable,
        "settings": {name: dict(one) for name, one in peer.settings.items()},
    }


def _serve(connect: Callable[[str], Client], url: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    client = connect(url)
    answers.write('{"value": "ready"}\n')
    for line in sys.stdin:
        request = json.loads(line)
        began = time.monotonic()
        answer: dict[str, Any] = {}
        try:
            answer["value"] = _call(client, request["call"], request["arguments"])
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        answer["began"], answer["ended"] = began, time.monotonic()
        answers.write(json.dumps(answer) + "\n")


def _call(client: Client, name: str, arguments: list[Any]) -> Any:
    if name != "wait":
        return getattr(client, name)(*arguments)
    deadline = time.monotonic() + arguments[0]
    while client.left():
        if time.monotonic() > deadline:
            raise TimeoutError(f"workflows are left after {arguments[0]:g} s")
        time.sleep(POLL_SECONDS)
    return None
