"""Tests of a part of a workflow, from the request to the trace: nothing outside of it happens."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from computer_agents import ComputerAgentsClient

from app.db import Database
from app.nodes.base import NodeLimits
from app.services import keys
from tests.engine.conftest import ACTOR, Lab
from tests.processes import wait_for


class Counting:
    """Counts the requests by their path, and answers with that."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        counting = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                counting.calls[self.path] += 1
                body = b'{"path": "%s"}' % self.path.encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def world() -> Iterator[Counting]:
    made = Counting()
    yield made
    made.server.shutdown()
    made.server.server_close()


class User:
    """A user of the published SDK, and an executor."""

    def __init__(self, lab: Lab, db: Database, url: str) -> None:
        _, secret = keys.create_key(
            db, name="test", user_id=ACTOR.user_id, organization_id=ACTOR.organization_id
        )
        self.metronomes: Any = ComputerAgentsClient(api_key=secret, base_url=url).metronomes
        lab.start(limits=NodeLimits(http_allowed_private=("127.0.0.1",)))

    def workflow(self, *nodes: Any, edges: str) -> str:
        made = []
        for pair in edges.split():
            ends, _, handle = pair.partition(":")
            source, _, target = ends.partition(">")
            made.append({"source": source, "target": target, "sourceHandle": handle or None})
        definition = {"nodes": list(nodes), "edges": made}
        created = self.metronomes.create(name="test", definition=definition)
        return str(created["id"])

    def test(self, workflow: str, selection: Any, **fields: Any) -> dict[str, Any]:
        """The run of a test, once it has ended."""
        run = self.metronomes.run_test(workflow, selection=selection, **fields)
        assert run["triggerType"] == fields.get("trigger_type", "manual_test")

        def ended() -> Any:
            now = self.metronomes.get_run(workflow, run["id"])
            return now if now["completedAt"] else None

        found: dict[str, Any] = wait_for(ended)
        return found

    def trace(self, run: dict[str, Any]) -> list[tuple[str, str, str]]:
        steps = self.metronomes.list_run_steps(run["metronomeId"], run["id"])
        return [(one["nodeId"], one["nodeType"], one["status"]) for one in steps]


@pytest.fixture
def user(lab: Lab, db: Database, api_url: str) -> User:
    return User(lab, db, api_url)


def node(id: str, kind: str, parent: str | None = None, **config: Any) -> dict[str, Any]:
    raw: dict[str, Any] = {"id": id, "kind": kind, "config": config}
    return raw if parent is None else {**raw, "parentId": parent}


def asks(world: Counting, id: str, parent: str | None = None, path: str = "") -> dict[str, Any]:
    return node(id, "http", parent, url=f"{world.url}/{path or id}")


def line(user: User, world: Counting) -> str:
    return user.workflow(
        node("start", "trigger"),
        asks(world, "fetch"),
        node("shape", "transform", output={"id": "{{ steps.fetch.output.body.id }}"}),
        asks(world, "send", path="send-{{ steps.shape.output.id }}"),
        node("done", "end"),
        edges="start>fetch fetch>shape shape>send send>done",
    )


def test_only_the_selected_nodes_do_anything(user: User, world: Counting) -> None:
    workflow = line(user, world)
    fixture = {"steps": {"fetch": {"body": {"id": 7}}}}
    run = user.test(workflow, {"nodeIds": ["shape", "send"]}, fixture=fixture)
    assert run["status"] == "completed", run
    assert run["output"]["body"] == {"path": "/send-7"}
    assert user.trace(run) == [
        ("fetch", "fixture", "completed"),
        ("shape", "transform", "completed"),
        ("send", "http", "completed"),
    ]
    assert world.calls == {"/send-7": 1}


def test_a_preview_does_nothing_and_tells_what_would_be_done(user: User, world: Counting) -> None:
    workflow = line(user, world)
    told = user.metronomes.preview_test_run(workflow, selection={"nodeId": "send"})
    assert told["valid"]
    assert [one["nodeId"] for one in told["nodes"]] == ["send"]
    assert [one["nodeId"] for one in told["fixtures"]] == ["shape"]
    assert [one["nodeId"] for one in told["sideEffects"]] == ["send"]
    assert [one["reads"] for one in told["missingFixtures"]] == [["steps.shape.output.id"]]
    assert not world.calls
    assert not user.metronomes.list_runs(workflow)


def test_one_node_fails_where_the_fixture_lacks_what_it_reads(user: User, world: Counting) -> None:
    run = user.test(line(user, world), {"type": "node", "nodeId": "shape"})
    assert run["status"] == "failed"
    assert "body" in run["error"]
    assert not world.calls


def test_bindings_in_a_fixture_are_mere_texts(user: User, world: Counting) -> None:
    fixture = {"steps": {"fetch": {"body": {"id": "{{ run.id }} {{ nobody }}"}}}}
    run = user.test(line(user, world), {"nodeId": "shape"}, fixture=fixture)
    assert run["output"] == {"id": "{{ run.id }} {{ nobody }}"}


def test_a_trigger_outside_hands_the_input_on(user: User) -> None:
    workflow = user.workflow(
        node("start", "trigger"),
        node("hello", "transform", output="{{ steps.start.output.a + trigger.input.a }}"),
        edges="start>hello",
    )
    for given in ({"inputs": {"a": 2}}, {"fixture": {"trigger": {"input": {"a": 2}}}}):
        assert user.test(workflow, {"nodeId": "hello"}, **given)["output"] == {"value": 4}


@pytest.mark.parametrize(
    ("total", "expected"), [(5, ["ask", "big", "small", "join"]), (0, ["ask", "big", "join"])]
)
def test_a_condition_decides_for_real(
    user: User, world: Counting, total: int, expected: list[str]
) -> None:
    workflow = user.workflow(
        asks(world, "ask"),
        node(
            "size",
            "condition",
            conditions=[{"id": "big", "expression": "steps.ask.output.total > 1"}],
        ),
        asks(world, "big"),
        asks(world, "small"),
        node("join", "end", output={"done": True}),
        edges="ask>size size>big:big size>small:else big>join small>join",
    )
    fixture = {"steps": {"ask": {"total": total}}}
    run = user.test(workflow, {"nodeIds": ["size", "big", "join"]}, fixture=fixture)
    assert (run["status"], run["output"]) == ("completed", {"done": True})
    assert world.calls == ({"/big": 1} if total else {})
    statuses = {id: (kind, status) for id, kind, status in user.trace(run)}
    assert statuses["small"] == ("fixture", "skipped" if total else "completed")
    assert statuses["big"] == ("http", "completed" if total else "skipped")


def test_a_handler_of_errors_gets_the_error_of_the_fixture(user: User, world: Counting) -> None:
    workflow = user.workflow(
        asks(world, "charge"),
        node("sorry", "transform", output="{{ steps.charge.error }}"),
        asks(world, "thanks"),
        edges="charge>thanks charge>sorry:error",
    )
    fixture = {"errors": {"charge": "HTTP 402"}}
    run = user.test(workflow, {"nodeId": "sorry"}, fixture=fixture)
    assert (run["status"], run["output"]) == ("completed", {"value": "HTTP 402"})
    assert user.trace(run)[0] == ("charge", "fixture", "failed")
    assert not world.calls


def orders(user: User, world: Counting) -> str:
    return user.workflow(
        node("start", "trigger"),
        asks(world, "list"),
        node("each", "loop", loopType="for_each", inputBinding="steps.list.output.body"),
        node("price", "transform", "each", output={"sum": "{{ loop.item.n * 2 }}"}),
        asks(world, "put", "each", path="put-{{ steps.price.output.sum }}"),
        asks(world, "after"),
        edges="start>list list>each price>put each>after",
    )


def test_a_whole_loop_goes_round(user: User, world: Counting) -> None:
    fixture = {"steps": {"list": {"body": [{"n": 1}, {"n": 2}]}}}
    run = user.test(orders(user, world), {"nodeId": "each"}, fixture=fixture)
    assert run["status"] == "completed", run
    assert run["output"]["iterations"] == 2
    assert world.calls == {"/put-2": 1, "/put-4": 1}


def test_a_loop_with_a_part_of_its_body_asks_nobody_for_the_rest(
    user: User, world: Counting
) -> None:
    fixture = {"steps": {"list": {"body": [{"n": 1}, {"n": 2}]}, "price": {"sum": 9}}}
    run = user.test(orders(user, world), {"nodeIds": ["each", "put"]}, fixture=fixture)
    assert run["status"] == "completed", run
    assert world.calls == {"/put-9": 2}
    run = user.test(orders(user, world), {"nodeIds": ["each", "price"]}, fixture=fixture)
    assert run["output"]["outputs"] == [{"sum": 2}, {"sum": 4}]
    assert world.calls == {"/put-9": 2}


def test_a_node_inside_of_a_loop_sees_the_loop_of_the_fixture(user: User, world: Counting) -> None:
    workflow = orders(user, world)
    run = user.test(workflow, {"nodeId": "price"}, fixture={"loop": {"item": {"n": 21}}})
    assert run["output"] == {"sum": 42}
    assert user.trace(run) == [
        ("each", "fixture", "completed"),
        ("price", "transform", "completed"),
    ]
    assert not world.calls


def test_what_only_answers_is_no_part_of_the_output(user: User) -> None:
    workflow = user.workflow(
        node("a", "transform", output={"n": 1}),
        node("b", "transform", output={}),
        node("c", "transform", output={"sum": "{{ steps.a.output.n + 1 }}"}),
        edges="a>b b>c",
    )
    run = user.test(workflow, {"nodeId": "c"}, fixture={"steps": {"a": {"n": 4}}})
    assert run["output"] == {"sum": 5}


def test_the_draft_runs_whatever_is_published(user: User) -> None:
    def says(what: str) -> dict[str, Any]:
        nodes = [node("t", "trigger"), node("end", "end", output={"is": what})]
        return {"nodes": nodes, "edges": [{"source": "t", "target": "end"}]}

    created = user.metronomes.create(name="test", definition=says("published"))
    version = user.metronomes.create_version(created["id"], definition=says("published"))
    user.metronomes.publish_version(created["id"], version["id"])
    user.metronomes.update(created["id"], definition=says("draft"))
    for expected, wanted in (
        ("draft", {}),
        ("inline", {"definition": says("inline")}),
        ("published", {"version_id": version["id"]}),
    ):
        run = user.metronomes.test_run(created["id"], **wanted)
        assert run["triggerType"] == "manual_test"

        def output(id: str = run["id"]) -> Any:
            return user.metronomes.get_run(created["id"], id)["output"]

        assert wait_for(output) == {"is": expected}
        part = user.test(created["id"], {"nodeId": "end"}, **wanted)
        assert part["output"] == {"is": expected}
