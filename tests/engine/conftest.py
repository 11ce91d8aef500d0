"""Executors in this process on a real database, with node kinds that a test can hold."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import orjson
import pytest
from sqlalchemy import text
from werkzeug.serving import make_server

from app import create_app
from app.config import Settings
from app.db import Database
from app.domain import retry
from app.domain.models import Actor, Page, Run, Step, Transitioned
from app.domain.outcomes import Done, Failed, Interrupted, Outcome
from app.engine import pending, riding
from app.engine.executor import Executor, Options
from app.nodes import RUNNABLE
from app.nodes.base import Context, NodeKind, NodeLimits
from app.nodes.function import Functions
from app.services import concurrency, metronomes, runs, starts, transitions
from app.store.concurrency import Group
from app.store.leases import DUE_CHANNEL
from tests.connectors import connector
from tests.processes import PATIENCE, ROOT, wait_for

ACTOR = Actor("key_test", "user_test", "org_test")


class Gate(NodeKind):
    """Tells that it has begun, then waits until the test opens it; deaf to the stop signal."""

    kind: ClassVar[str] = "gate"

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self.calls: list[str] = []

    def run(self, context: Context) -> Outcome:
        self.calls.append(context.node_id)
        self.begun.set()
        assert self.open.wait(PATIENCE), "the test never opened the gate"
        return Done({"through": context.node_id})


class Stoppable(Gate):
    """Like a gate, but it gives up on the stop signal."""

    kind: ClassVar[str] = "stoppable"

    def run(self, context: Context) -> Outcome:
        self.calls.append(context.node_id)
        self.begun.set()
        if context.stop.wait(PATIENCE):
            return Interrupted(f"stopped: {context.stop.reason}")
        raise AssertionError("nobody stopped the node")


class Risky(Gate):
    """A gate that is unsafe to replay; with ``heeds`` in its config it gives up when stopped."""

    kind: ClassVar[str] = "risky"

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []  # the idempotency key of each call

    def replay_safe(self, config: Mapping[str, Any], limits: NodeLimits) -> bool:
        return False

    def run(self, context: Context) -> Outcome:
        self.keys.append(context.idempotency_key)
        if not context.config.get("heeds"):
            return super().run(context)
        self.begun.set()
        while not self.open.wait(0.01):
            if context.stop.is_set():
                return Interrupted(f"stopped: {context.stop.reason}")
        return Done({"through": context.node_id})


class Flaky(NodeKind):
    """Fails as often as its config says, then ends well."""

    kind: ClassVar[str] = "flaky"

    def __init__(self) -> None:
        self.calls: list[Context] = []

    def run(self, context: Context) -> Outcome:
        self.calls.append(context)
        if len(self.calls) <= context.config.get("failures", 0):
            return Failed("not yet", retryable=context.config.get("retryable", True))
        if "value" in context.config:
            return Done({"value": context.config["value"]})
        if context.config.get("raises"):
            raise RuntimeError("out of the blue")
        return Done({"calls": len(self.calls)})


class Lab:
    """One database, its runs, and the executors that a test starts."""

    def __init__(self, db: Database, url: str) -> None:
        self.db = db
        self.url = url
        self.gate, self.stoppable, self.flaky = Gate(), Stoppable(), Flaky()
        self.risky = Risky()
        mine = {kind.kind: kind for kind in (self.gate, self.stoppable, self.flaky, self.risky)}
        self.kinds = {**RUNNABLE, **mine}
        self._executors: list[tuple[Executor, threading.Thread]] = []

    def start(self, **changes: Any) -> Executor:
        """Start an executor; ``changes`` are to its Options."""
        values: dict[str, Any] = {
            "database_url": self.url,
            "threads": 4,
            "lease": 30.0,
            "poll": 0.1,
            "grace": 1.0,
            "listen": True,
            "limits": NodeLimits(output_max_bytes=10_000),
        }
        executor = Executor(Options(**{**values, **changes}), kinds=self.kinds)
        thread = threading.Thread(target=executor.run, daemon=True)
        thread.start()
        self._executors.append((executor, thread))
        return executor

    def stop(self, executor: Executor) -> None:
        """Drain one executor and wait for its end."""
        for index, (one, thread) in enumerate(self._executors):
            if one is executor:
                one.drain()
                thread.join(PATIENCE)
                assert not thread.is_alive(), "the executor did not end"
                del self._executors[index]
                return

    def close(self) -> None:
        """Let every node go and end all executors."""
        self.gate.open.set()
        self.risky.open.set()
        for executor, _ in list(self._executors):
            self.stop(executor)

    def queue(self, *nodes: dict[str, Any], edges: str = "", **wanted: Any) -> Run:
        """Queue a run of these nodes; ``edges`` such as ``a>b b>c:yes``, by default a chain."""
        return self.begin(self.workflow("test", *nodes, edges=edges), **wanted)

    def workflow(
        self, name: str, *nodes: dict[str, Any], edges: str = "", actor: Actor = ACTOR
    ) -> str:
        """The id of a new workflow of these nodes; its draft has no version yet."""
        definition = {"nodes": list(nodes), "edges": _edges(nodes, edges)}
        metronome = metronomes.create(self.db, actor, name=name)
        with self.db.connect() as connection:
            # straight into the table: the test's own kinds are unknown to the check on save
            connection.execute(
                text("UPDATE metronomes SET definition = :definition WHERE id = :id"),
                {"definition": orjson.dumps(definition).decode(), "id": metronome.id},
            )
        return metronome.id

    def begin(self, metronome_id: str, **wanted: Any) -> Run:
        """Queue a run of a workflow."""
        request = starts.RunRequest(**wanted)
        run, _ = starts.create(self.db, ACTOR, metronome_id, request, tell=self.tell)
        return run

    def tell(self) -> None:
        """Notify the executors that something is due."""
        with self.db.connect() as connection:
            connection.execute(text(f"NOTIFY {DUE_CHANNEL}"))

    def get(self, run: Run) -> Run:
        """The run as it is now."""
        return self.get_by(run.metronome_id, run.id)

    def get_by(self, metronome_id: str, run_id: str) -> Run:
        """The run of these ids."""
        return runs.get(self.db, ACTOR, metronome_id, run_id)

    def trace(self, run: Run) -> list[Step]:
        """Its steps as they are now."""
        return runs.list_steps(self.db, ACTOR, run.metronome_id, run.id, Page(10_000))

    def statuses(self, run: Run) -> list[tuple[str, str]]:
        """Node id and status of each step, in order."""
        return [(step.node_id, step.status) for step in self.trace(run)]

    def cancel(self, run: Run) -> Transitioned:
        """Cancel it as the API does."""
        return transitions.cancel(self.db, ACTOR, run.metronome_id, run.id, free=self.free)

    def resume(self, run: Run) -> Run:
        """Resume it; the run as it is once places were given."""
        transitions.resume(self.db, ACTOR, run.metronome_id, run.id, free=self.free)
        return self.get(run)

    def retry(self, run: Run) -> Run:
        """Retry it from the start; the run as it is once places were given."""
        transitions.retry(self.db, ACTOR, run.metronome_id, run.id, afresh=True, free=self.free)
        return self.get(run)

    def free(self, groups: Iterable[Group], actor: Actor | None = None) -> None:
        """Give places on at once; a server does it in the background."""
        left = list(groups)
        while left:
            left = concurrency.settle(self.db, left, actor)

    def until(self, run: Run, status: str) -> Run:
        """Wait until the run has this status, and nobody holds it."""

        def reached() -> Run | None:
            now = self.get(run)
            return now if now.status == status and now.locked_by is None else None

        return wait_for(reached, message=lambda: f"{status}: {self.get(run)} {self.trace(run)}")


def _edges(nodes: tuple[dict[str, Any], ...], written: str) -> list[dict[str, Any]]:
    pairs = written.split() or [
        f"{one['id']}>{two['id']}" for one, two in itertools.pairwise(nodes)
    ]
    edges = []
    for number, pair in enumerate(pairs):
        ends, _, handle = pair.partition(":")
        source, _, target = ends.partition(">")
        edge = {"id": f"e{number}", "source": source, "target": target}
        edges.append({**edge, "sourceHandle": handle} if handle else edge)
    return edges


def node(kind: str, id: str | None = None, **config: Any) -> dict[str, Any]:
    """A node of the SDK's shape; its id is its kind by default."""
    return {"id": id or kind, "kind": kind, "config": config}


@pytest.fixture
def long_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed attempt of a run is followed by minutes without another one."""
    defaults = retry.backoff.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "base", retry.MAX_SECONDS)


@pytest.fixture
def lab(db: Database, database_url: str) -> Iterator[Lab]:
    """An empty database and no executor yet."""
    laboratory = Lab(db, database_url)
    yield laboratory
    laboratory.close()


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions of tests/functions are installed."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "functions"))
    monkeypatch.setattr("app.nodes.function.FUNCTIONS", Functions())


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine may be slow: only a test of time counts it."""
    monkeypatch.setattr(pending, "RIDE_SECONDS", 3600.0)
    monkeypatch.setattr(riding, "QUICK_SECONDS", 3600.0)
    monkeypatch.setattr(riding, "WAIT_SECONDS", 3600.0)


@pytest.fixture
def api_url(database_url: str) -> Iterator[str]:
    """The API on a socket, for those who call back."""
    app = create_app(Settings(database_url=database_url, listen=False))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()
    app.extensions["metronome"].places.close()
    app.extensions["metronome"].db.close()


@pytest.fixture
def connected(lab: Lab, api_url: str) -> Callable[..., None]:
    """Start an executor whose connector for actions is at a URL."""

    def begin(url: str, *, name: str = "action", options: Any = None, **settings: Any) -> None:
        limits = NodeLimits(
            output_max_bytes=10_000,
            connectors={name: connector(url, name, **settings)},
            public_url=api_url,
        )
        lab.start(limits=limits, **(options or {}))

    return begin
