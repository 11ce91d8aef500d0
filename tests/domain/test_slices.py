"""A part of a workflow as a workflow of its own: what is kept, and what stands in for the rest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import Conflict, Invalid
from app.domain.fixtures import Fixture
from app.domain.graph import FIXTURE, check_shape, parse
from app.domain.progress import Progress, body_entries, entry_nodes
from app.domain.slices import Slice, cut
from app.nodes import REGISTRY, RUNNABLE


def node(id: str, kind: str = "transform", parent: str | None = None, **config: Any) -> Any:
    raw: dict[str, Any] = {"id": id, "kind": kind, "config": config}
    return raw if parent is None else {**raw, "parentId": parent, "extent": "parent"}


def workflow(*nodes: Any, edges: str = "") -> dict[str, Any]:
    """A sound definition; ``edges`` such as ``a>b b>c:yes``."""
    made = []
    for pair in edges.split():
        ends, _, handle = pair.partition(":")
        source, _, target = ends.partition(">")
        made.append({"source": source, "target": target, "sourceHandle": handle or None})
    definition = {"name": "kept", "nodes": list(nodes), "edges": made}
    assert check_shape(definition, REGISTRY) == []
    return definition


def part(definition: Any, *wanted: str, type: str = "manual_test", **fixture: Any) -> Slice:
    return cut(definition, wanted, Fixture(**fixture), trigger_type=type, kinds=REGISTRY)


def kinds(found: Slice) -> dict[str, str]:
    return {raw["id"]: raw.get("kind", "") for raw in found.definition["nodes"]}


def edges(found: Slice) -> list[str]:
    return [
        f"{raw['source']}>{raw['target']}" + (f":{raw['sourceHandle']}" * bool(raw["sourceHandle"]))
        for raw in found.definition["edges"]
    ]


def config(found: Slice, id: str) -> dict[str, Any]:
    (raw,) = [raw for raw in found.definition["nodes"] if raw["id"] == id]
    inner: dict[str, Any] = raw["config"]
    return inner


def walked(found: Slice, type: str = "manual_test", **branches: str) -> list[str]:
    """The nodes that would run, in order, where each takes the branch that is given."""
    graph = parse(found.definition).body(None)
    progress = Progress(graph, entry_nodes(graph, type))
    order = []
    while ready := progress.ready():
        one = graph.nodes[ready[0]]
        own = one.config if one.kind == FIXTURE else {}
        failed = "error" if "error" in own else own.get("branch")
        order.append(one.id)
        progress.settle(one.id, branches.get(one.id, failed))
    return order


LINE = workflow(
    node("start", "trigger"),
    node("fetch", "http", url="https://example.org", outputKey="found"),
    node("shape", output={"n": "{{ steps.fetch.output.body.total }}"}),
    node("send", "http", url="https://example.org/{{ found.body.id }}"),
    node("done", "end"),
    edges="start>fetch fetch>shape shape>send send>done",
)


def test_one_node_is_kept_with_stand_ins_for_what_leads_to_it() -> None:
    found = part(LINE, "shape")
    assert kinds(found) == {"fetch": FIXTURE, "shape": "transform"}
    assert edges(found) == ["fetch>shape"]
    assert found.definition["name"] == "kept"
    assert walked(found) == ["fetch", "shape"]


def test_what_is_read_from_far_away_gets_a_stand_in_that_has_ended_before() -> None:
    found = part(LINE, "send", steps={"fetch": {"body": {"id": 7}}})
    assert kinds(found) == {"fetch": FIXTURE, "shape": FIXTURE, "send": "http"}
    assert edges(found) == ["shape>send"]
    assert config(found, "fetch") == {"output": {"body": {"id": 7}}, "outputKey": "found"}
    assert walked(found) == ["fetch", "shape", "send"]
    assert found.missing == ()


def test_what_is_missing_is_named_with_the_paths_that_are_read() -> None:
    (missing,) = part(LINE, "send", "shape", steps={"fetch": {"body": {"id": 7}}}).missing
    assert (missing.field, missing.node_id) == ("fixture.steps.fetch", "fetch")
    assert missing.reads == ("steps.fetch.output.body.total",)
    assert part(LINE, "send", "shape").missing[0].reads == (
        "steps.fetch.output.body.id",
        "steps.fetch.output.body.total",
    )


def test_an_end_without_output_reads_all_that_leads_to_it() -> None:
    found = part(LINE, "done")
    assert [one.field for one in found.missing] == ["fixture.steps.send"]
    assert part(LINE, "done", steps={"send": {"status": 200}}).missing == ()


def test_a_trigger_answers_with_the_input() -> None:
    definition = workflow(
        node("start", "trigger"),
        node("hello", output="{{ steps.start.output.name }} {{ trigger.input.age }}"),
        edges="start>hello",
    )
    found = part(definition, "hello", input={"name": "Ada"})
    assert config(found, "start") == {"ofInput": True}
    assert found.stand_ins[0].output == {"name": "Ada"}
    assert [(one.field, one.reads) for one in found.missing] == [("input", ("trigger.input.age",))]


def test_fixture_data_are_never_looked_into() -> None:
    found = part(LINE, "shape", steps={"fetch": {"body": "{{ steps.send.output }}"}})
    assert "send" not in kinds(found)
    assert config(found, "fetch")["output"] == {"body": "{{ steps.send.output }}"}


def test_a_value_that_is_no_object_is_wrapped_as_outputs_are() -> None:
    found = part(LINE, "shape", steps={"fetch": [1]})
    assert config(found, "fetch")["output"] == {"value": [1]}


FORK = workflow(
    node("start", "trigger"),
    node("size", "condition", conditions=[{"id": "big", "expression": "1 > 0"}]),
    node("yes"),
    node("no"),
    node("join"),
    node("after"),
    edges="start>size size>yes:big size>no:else yes>join no>join join>after",
)


def test_a_condition_and_its_branches_are_decided_for_real() -> None:
    found = part(FORK, "size", "yes", "no", "join")
    assert walked(found, size="big") == ["start", "size", "yes", "join"]
    assert walked(found, size="else") == ["start", "size", "no", "join"]


def test_what_lies_between_is_a_stand_in_that_only_runs_when_its_branch_is_taken() -> None:
    found = part(FORK, "size", "yes", "join")
    assert kinds(found)["no"] == FIXTURE
    assert walked(found, size="big") == ["start", "size", "yes", "join"]
    assert walked(found, size="else") == ["start", "size", "no", "join"]


def test_a_condition_outside_takes_the_branch_that_leads_in() -> None:
    found = part(FORK, "no")
    assert config(found, "size") == {"output": {"matched": "else"}, "branch": "else"}
    assert walked(found) == ["size", "no"]
    assert found.missing == ()


def test_where_several_branches_lead_in_the_fixture_says_which() -> None:
    found = part(FORK, "yes", "join", "no")
    (guess,) = found.missing
    assert (guess.field, guess.reads) == ("fixture.branches.size", ("big", "else"))
    assert walked(found) == ["size", "yes", "join"]
    told = part(FORK, "yes", "join", "no", branches={"size": "false"})
    assert told.missing == ()
    assert walked(told) == ["size", "no", "join"]


def test_a_node_with_the_output_null_was_skipped() -> None:
    found = part(FORK, "join", steps={"no": None, "yes": {"a": 1}})
    assert walked(found) == ["yes", "join"]
    assert walked(part(FORK, "join", steps={"no": None, "yes": None})) == []


def test_a_skipped_node_between_stays_skipped() -> None:
    found = part(FORK, "size", "yes", "join", steps={"no": None})
    assert walked(found, size="else") == ["start", "size"]


def test_a_branch_that_there_is_not_is_refused() -> None:
    with pytest.raises(Invalid, match=r"branches\.size.*there are big, else, true, false, error"):
        part(FORK, "join", "yes", "no", branches={"size": "nobody"})
    for branch in ("big", "error"):
        with pytest.raises(Invalid, match=r"fixture\.branches\.yes"):
            part(FORK, "join", branches={"yes": branch})
    with pytest.raises(Invalid, match=r"fixture\.errors\.yes"):
        part(FORK, "join", errors={"yes": "no"})


CATCH = workflow(
    node("start", "trigger"),
    node("charge", "http", url="https://example.org"),
    node("thanks"),
    node("sorry", output="{{ steps.charge.error }}"),
    edges="start>charge charge>thanks charge>sorry:error",
)


def test_an_error_edge_alone_is_taken_since_the_node_failed() -> None:
    found = part(CATCH, "sorry")
    assert config(found, "charge") == {"output": {}, "error": "it failed in the fixture"}
    assert walked(found) == ["charge", "sorry"]
    told = part(CATCH, "sorry", errors={"charge": "HTTP 402"}, steps={"charge": {"status": 402}})
    assert config(told, "charge") == {"output": {"status": 402}, "error": "HTTP 402"}
    with pytest.raises(Invalid, match=r"fixture\.branches\.charge"):
        part(CATCH, "sorry", errors={"charge": "x"}, branches={"charge": "ok"})


def test_an_approval_outside_is_an_approved_one() -> None:
    definition = workflow(
        node("ask", "approval"), node("go"), node("stop"), edges="ask>go ask>stop:rejected"
    )
    assert walked(part(definition, "go")) == ["ask", "go"]
    assert config(part(definition, "go"), "ask")["output"] == {"decision": "approved"}
    assert config(part(definition, "stop"), "ask")["branch"] == "rejected"
    with pytest.raises(Invalid, match="not connected"):
        part(definition, "go", "stop")


LOOPS = workflow(
    node("start", "trigger"),
    node("orders", "http", url="https://example.org"),
    node("each", "loop", loopType="for_each", inputBinding="steps.orders.output.body"),
    node("price", "transform", "each", output="{{ loop.item.price * steps.orders.output.rate }}"),
    node("again", "loop", "each", loopType="fixed_count", iterations=2),
    node("put", "http", "again", url="https://example.org/{{ loop.outer.item.id }}"),
    node("sum", "transform", None, output="{{ steps.each.output.iterations }}"),
    edges="start>orders orders>each each>price price>again again>put each>sum",
)


def test_a_loop_stands_for_all_that_is_inside() -> None:
    found = part(LOOPS, "each")
    assert kinds(found) == {
        "orders": FIXTURE,
        "each": "loop",
        "price": "transform",
        "again": "loop",
        "put": "http",
    }
    assert [one.id for one in found.nodes] == ["each", "price", "again", "put"]
    assert edges(found) == ["orders>each", "each>price", "price>again", "again>put"]
    graph = parse(found.definition)
    assert list(graph.body("each").nodes) == ["price", "again"]
    assert body_entries(graph.body("each")) == {"price"}


def test_a_node_inside_of_a_loop_runs_once_and_sees_the_loop_of_the_fixture() -> None:
    found = part(LOOPS, "price", loop={"item": {"price": 3}}, steps={"orders": {"rate": 2}})
    assert found.missing == ()
    assert kinds(found) == {"each": FIXTURE, "orders": FIXTURE, "price": "transform"}
    assert config(found, "each") == {
        "output": {
            "index": 0,
            "count": 1,
            "item": {"price": 3},
            "items": [{"price": 3}],
            "previous": None,
            "outer": None,
        },
        "outputKey": "loop",
    }
    assert all("parentId" not in raw and "extent" not in raw for raw in found.definition["nodes"])
    assert walked(found) == ["each", "orders", "price"]


def test_what_the_fixture_lacks_of_the_loop_is_named() -> None:
    assert [(one.field, one.reads) for one in part(LOOPS, "price").missing] == [
        ("fixture.loop", ("loop.item.price",)),
        ("fixture.steps.orders", ("steps.orders.output.rate",)),
    ]


def test_a_loop_inside_of_a_loop_sees_the_fixture_as_the_outer_one() -> None:
    found = part(LOOPS, "again")
    assert list(parse(found.definition).body("again").nodes) == ["put"]
    missing = {one.field: one.reads for one in found.missing}
    assert missing == {"fixture.loop": ("loop.item.id",)}
    deep = part(LOOPS, "put", loop={"outer": {"item": {"id": 1}}})
    assert deep.missing == ()
    assert kinds(deep) == {"again": FIXTURE, "put": "http"}


def test_a_loop_with_a_part_of_its_body_has_stand_ins_inside() -> None:
    found = part(LOOPS, "each", "again", "put")
    inside = parse(found.definition).body("each")
    assert {id: one.kind for id, one in inside.nodes.items()} == {"price": FIXTURE, "again": "loop"}
    assert body_entries(inside) == {"price"}


def test_the_loop_that_a_node_is_in_can_not_be_read_by_it() -> None:
    definition = workflow(
        node("each", "loop"), node("x", "transform", "each", output="{{ steps.each.output }}")
    )
    assert kinds(part(definition, "x")) == {"x": "transform"}


def test_nodes_that_are_not_connected_are_named() -> None:
    with pytest.raises(Invalid) as refused:
        part(LINE, "fetch", "send", "done")
    assert refused.value.code == "not_connected"
    assert refused.value.details == {
        "selection.nodeIds": [
            "not connected with 'fetch' by edges inside of the selection: 'send', 'done'"
        ]
    }
    with pytest.raises(Invalid, match="not connected"):
        part(LOOPS, "orders", "price")


def test_unknown_nodes_are_refused_by_name() -> None:
    with pytest.raises(Invalid, match=r"no nodes of the definition: 'nobody'"):
        part(LINE, "fetch", "nobody")
    for field in ("steps", "branches", "errors"):
        fixture = Fixture(**{field: {"nobody": "x"}})
        with pytest.raises(Invalid, match=rf"fixture\.{field}\.nobody is no node"):
            cut(LINE, ["fetch"], fixture, trigger_type="manual", kinds=REGISTRY)


def test_a_remark_alone_can_not_run() -> None:
    with pytest.raises(Conflict, match="no node that could run"):
        part(workflow(node("n", "note"), node("a")), "n")


def test_what_has_no_effect_is_told() -> None:
    found = part(
        LINE, "shape", steps={"shape": {}, "send": {}}, branches={"shape": "x"}, loop={"item": 1}
    )
    assert found.unused == (
        "fixture.steps.shape",
        "fixture.steps.send",
        "fixture.branches.shape",
        "fixture.loop",
    )


def test_a_name_that_is_known_only_later_takes_all_that_the_fixture_has() -> None:
    definition = workflow(
        node("a"), node("b"), node("c", output="{{ steps[trigger.input.which].output }}")
    )
    assert list(kinds(part(definition, "c", steps={"b": {}}))) == ["b", "c"]


def test_a_run_of_a_trigger_type_passes_over_the_other_triggers() -> None:
    definition = workflow(
        node("byHand", "trigger"),
        {**node("hook", "trigger"), "subtype": "github"},
        node("a"),
        node("b"),
        node("c"),
        edges="byHand>a hook>b a>c b>c",
    )
    assert walked(part(definition, "a", "c", "b", type="github")) == ["hook", "b", "c"]
    assert walked(part(definition, "a", "c", "b")) == ["byHand", "a", "c"]
    # The only way in is taken, whatever its type is.
    assert walked(part(definition, "b")) == ["hook", "b"]
    # Where one trigger is part of the test, what stands in for others begins as well.
    assert walked(part(definition, "byHand", "a", "c")) == ["b", "byHand", "a", "c"]


def test_the_form_of_the_visual_builders_stays() -> None:
    definition: dict[str, Any] = {
        "nodes": [
            {"id": "t", "position": {"x": 1}, "data": {"kind": "trigger", "label": "Begin"}},
            {"id": "a", "type": "custom", "data": {"kind": "transform", "config": {}}},
        ],
        "edges": [{"id": "e", "source": "t", "target": "a"}],
    }
    found = part(definition, "a")
    assert found.definition["nodes"] == [
        {
            "id": "t",
            "kind": FIXTURE,
            "subtype": "trigger",
            "label": "Begin",
            "position": {"x": 1},
            "config": {"ofInput": True},
        },
        definition["nodes"][1],
    ]


def test_nobody_can_save_a_fixture() -> None:
    (issue,) = check_shape({"nodes": [node("x", FIXTURE)]}, REGISTRY)
    assert issue.code == "unknown_kind"


@st.composite
def workflows(draw: st.DrawFn) -> dict[str, Any]:
    """Up to twelve nodes, some of them inside of loops, that read each other and lead forwards."""
    nodes: list[Any] = []
    loops: list[str | None] = [None]
    for number in range(draw(st.integers(1, 12))):
        id = f"n{number}"
        kind = draw(st.sampled_from(["transform", "condition", "approval", "loop", "trigger"]))
        parent = None if kind == "trigger" else draw(st.sampled_from(loops))
        if kind == "loop" and len(loops) < 4:
            loops.append(id)
        read = draw(st.integers(0, 11))
        config: dict[str, Any] = {"output": f"{{{{ steps.n{read}.output.x|default(loop.index) }}}}"}
        if kind == "condition":
            config = {"conditions": [{"id": "a", "expression": f"steps.n{read}.output.x"}]}
        if kind in ("loop", "trigger", "approval"):
            config = {}
        nodes.append({"id": id, "kind": kind, "parentId": parent, "config": config})
    edges: list[Any] = []
    for place, source in enumerate(nodes):
        for target in nodes[place + 1 :]:
            if source["parentId"] == target["parentId"] and draw(st.booleans()):
                handles: dict[str, list[str | None]] = {
                    "condition": ["a", "else", "error"],
                    "approval": [None, "rejected"],
                }
                handle = draw(st.sampled_from(handles.get(source["kind"], [None, "error"])))
                ends = {"source": source["id"], "target": target["id"]}
                edges.append({**ends, "sourceHandle": handle})
    return {"nodes": nodes, "edges": edges}


@given(workflows(), st.data())
def test_every_part_is_sound_and_ends(definition: dict[str, Any], data: st.DataObject) -> None:
    assert check_shape(definition, REGISTRY) == []
    ids = [raw["id"] for raw in definition["nodes"]]
    wanted = data.draw(st.lists(st.sampled_from(ids), min_size=1, unique=True))
    told = data.draw(st.lists(st.sampled_from(ids), unique=True))
    fixture = Fixture(steps={id: data.draw(st.sampled_from([None, {}, {"x": 1}])) for id in told})
    try:
        found = cut(definition, wanted, fixture, trigger_type="manual_test", kinds=REGISTRY)
    except Invalid as refusal:
        if refusal.code != "not_connected" or len(wanted) == 1:
            raise
        return
    issues = check_shape(found.definition, RUNNABLE)
    assert {issue.code for issue in issues} <= {"invalid_output_key"}  # that of the loop around
    chosen = {node.id for node in found.nodes}
    assert set(wanted) <= chosen
    assert {id for id, kind in kinds(found).items() if kind != FIXTURE} == chosen
    graph = parse(found.definition)
    for level in {node.parent_id for node in graph.nodes.values()}:
        body = graph.body(level)
        beginnings = entry_nodes(body, "manual") if level is None else body_entries(body)
        # Without anything skipped, something of the part begins.
        if None not in fixture.steps.values():
            assert beginnings or not body.nodes
    if None not in fixture.steps.values() and len(wanted) == 1:
        assert wanted[0] in walked(found) or graph.nodes[wanted[0]].parent_id is not None
