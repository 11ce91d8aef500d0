"""The walk through a graph: what may start, what is passed over, in which order."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.graph import Graph, parse
from app.domain.progress import Progress, body_entries, entry_nodes, has_error_edge


def graph(nodes: str, edges: str = "") -> Graph:
    """A graph of nodes ``id=kind.subtype`` (an action by default) and edges ``a>b:handle``."""
    made: list[dict[str, Any]] = []
    for word in nodes.split():
        id, _, kind = word.partition("=")
        kind, _, subtype = (kind or "transform").partition(".")
        made.append({"id": id, "kind": kind, "subtype": subtype or None})
    return parse({"nodes": made, "edges": [_edge(word) for word in edges.split()]})


def _edge(word: str) -> dict[str, Any]:
    ends, _, handle = word.partition(":")
    source, _, target = ends.partition(">")
    return {"source": source, "target": target, "sourceHandle": handle or None}


def at_top(made: Graph, trigger_type: str = "manual") -> Progress:
    return Progress(made, entry_nodes(made, trigger_type))


def walk(
    progress: Progress, branches: dict[str, str] | None = None, pick: random.Random | None = None
) -> tuple[list[str], list[str]]:
    """Take every node as it becomes ready: the order in which they ran, and the skipped ones."""
    ran: list[str] = []
    skipped = progress.take_skipped()
    while ready := progress.ready():
        node = pick.choice(ready) if pick else ready[0]
        ran.append(node)
        progress.settle(node, (branches or {}).get(node))
        skipped += progress.take_skipped()
    return ran, skipped


# -- where a run begins


@pytest.mark.parametrize(
    ("nodes", "trigger_type", "entries"),
    [
        ("m=trigger.manual p=trigger.periodic", "manual", "m"),
        ("m=trigger.manual p=trigger.periodic", "periodic", "p"),
        ("m=trigger.manual p=trigger.periodic", "github", "m"),
        ("m=trigger p=trigger.periodic", "manual", "m"),
        ("m=trigger p=trigger.periodic", "manual_test", "m"),
        ("g=trigger.github p=trigger.periodic", "manual", "g p"),
        ("a=trigger.github b=trigger.github c=trigger", "github", "a b"),
        ("a b c=note", "manual", "a b"),
        ("c=note", "manual", ""),
        ("", "manual", ""),
    ],
)
def test_a_run_begins_at_the_triggers_of_its_type(
    nodes: str, trigger_type: str, entries: str
) -> None:
    made = graph(nodes)
    assert entry_nodes(made, trigger_type) == set(entries.split())
    assert at_top(made, trigger_type).ready() == entries.split()


def test_the_triggers_of_other_types_are_skipped_with_what_only_they_lead_to() -> None:
    made = graph("m=trigger p=trigger.periodic a b join", "m>a p>b a>join b>join")
    progress = at_top(made)
    assert walk(progress) == (["m", "a", "join"], ["p", "b"])


def test_without_a_trigger_a_run_begins_where_no_edge_leads() -> None:
    assert walk(at_top(graph("a b c", "a>c b>c"))) == (["a", "b", "c"], [])


def test_notes_are_no_part_of_the_walk() -> None:
    assert walk(at_top(graph("n=note a n2=note"))) == (["a"], [])


def test_a_note_on_a_path_is_passed_through() -> None:
    assert walk(at_top(graph("t=trigger n=note a", "t>n n>a"))) == (["t", "n", "a"], [])


def test_nobody_waits_for_a_note_to_which_no_edge_leads() -> None:
    made = graph("t=trigger n=note a b", "t>a n>a n>b")
    assert walk(at_top(made)) == (["t", "a"], ["n", "b"])


def test_an_edge_into_a_trigger_does_not_start_it_twice() -> None:
    made = graph("a=trigger b=trigger c", "a>b b>c")
    assert walk(at_top(made)) == (["a", "b", "c"], [])


def test_an_untaken_edge_into_a_trigger_does_not_skip_it() -> None:
    made = graph("a=trigger b=trigger c", "a>b:error b>c")
    assert walk(at_top(made)) == (["a", "b", "c"], [])


# -- ways through


def test_a_line_is_taken_node_by_node() -> None:
    progress = at_top(graph("t=trigger a b", "t>a a>b"))
    for node in ("t", "a", "b"):
        assert progress.ready() == [node]
        progress.settle(node, None)
    assert progress.ready() == []
    assert progress.take_skipped() == []


def test_branches_are_ready_side_by_side_and_a_join_waits_for_all() -> None:
    progress = at_top(graph("t=trigger b a c join", "t>a t>b t>c a>join b>join c>join"))
    progress.settle("t", None)
    assert progress.ready() == ["b", "a", "c"]  # as they are defined
    progress.settle("c", None)
    progress.settle("b", None)
    assert progress.ready() == ["a"]
    progress.settle("a", None)
    assert progress.ready() == ["join"]


def test_a_node_becomes_ready_once_though_two_edges_lead_to_it_from_one_node() -> None:
    assert walk(at_top(graph("a b", "a>b a>b"))) == (["a", "b"], [])


def test_a_condition_takes_its_branch_and_skips_the_others() -> None:
    made = graph("c=condition x y z after", "c>x:x c>y:y c>z:else x>after")
    assert walk(at_top(made), {"c": "x"}) == (["c", "x", "after"], ["y", "z"])
    assert walk(at_top(made), {"c": "else"}) == (["c", "z"], ["x", "after", "y"])


def test_an_edge_without_a_handle_is_always_taken() -> None:
    made = graph("c=condition x always", "c>x:x c>always")
    assert walk(at_top(made), {"c": "else"}) == (["c", "always"], ["x"])


@pytest.mark.parametrize("kind", ["transform", "condition", "approval", "loop"])
def test_the_error_edges_are_taken_instead_of_the_others(kind: str) -> None:
    made = graph(f"a={kind} b mend", "a>b a>mend:error")
    assert walk(at_top(made)) == (["a", "b"], ["mend"])
    assert walk(at_top(made), {"a": "error"}) == (["a", "mend"], ["b"])


def test_a_failed_node_leaves_by_its_error_edges() -> None:
    made = graph("a b mend after", "a>b a>mend:error b>after mend>after")
    assert has_error_edge(made, "a")
    assert not has_error_edge(made, "b")
    progress = at_top(made)
    progress.fail("a")
    assert progress.take_skipped() == ["b"]
    assert walk(progress) == (["mend", "after"], [])


def test_after_a_rejection_only_the_edges_that_say_so_are_taken() -> None:
    made = graph("a=approval yes no plain bad", "a>yes:approved a>no:rejected a>plain a>bad:error")
    assert walk(at_top(made), {"a": "approved"}) == (["a", "yes", "plain"], ["no", "bad"])
    assert walk(at_top(made), {"a": "rejected"}) == (["a", "no"], ["yes", "plain", "bad"])


def test_an_iteration_begins_where_no_edge_of_the_body_leads() -> None:
    made = graph("a b c=note n=note d", "a>b n>d")
    assert body_entries(made) == {"a"}
    assert walk(Progress(made, body_entries(made))) == (["a", "b"], ["n", "d"])


def test_a_join_behind_a_diamond_runs_with_the_branch_that_was_taken() -> None:
    made = graph("c=condition x y join end", "c>x:x c>y:else x>join y>join join>end")
    assert walk(at_top(made), {"c": "x"}) == (["c", "x", "join", "end"], ["y"])


def test_skipping_goes_on_until_a_node_that_has_another_way_in() -> None:
    made = graph("c=condition x x2 x3 join y", "c>x:x x>x2 x2>x3 x3>join c>y:else y>join")
    assert walk(at_top(made), {"c": "else"}) == (
        ["c", "y", "join"],
        ["x", "x2", "x3"],
    )


def test_a_long_untaken_branch_is_skipped_without_recursion() -> None:
    count = 5000
    nodes = " ".join(["c=condition", *(f"n{i}" for i in range(count))])
    edges = " ".join(["c>n0:x", *(f"n{i}>n{i + 1}" for i in range(count - 1))])
    ran, skipped = walk(at_top(graph(nodes, edges)), {"c": "else"})
    assert ran == ["c"]
    assert skipped == [f"n{i}" for i in range(count)]


def test_skipped_nodes_are_told_once() -> None:
    progress = at_top(graph("c=condition x y", "c>x:x c>y:y"))
    progress.settle("c", "x")
    assert progress.take_skipped() == ["y"]
    assert progress.take_skipped() == []


# -- any graph


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, dict[str, str]]:
    """A graph without cycles, and the branch that each of its nodes takes."""
    count = draw(st.integers(1, 9))
    kinds = draw(
        st.lists(
            st.sampled_from(["trigger", "transform", "condition", "note"]),
            min_size=count,
            max_size=count,
        )
    )
    handles = st.sampled_from([None, None, "x", "y", "error"])
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    edges = [
        {"source": f"n{i}", "target": f"n{j}", "sourceHandle": draw(handles)}
        for i, j in draw(st.lists(st.sampled_from(pairs), max_size=16) if pairs else st.just([]))
    ]
    nodes: list[dict[str, Any]] = [{"id": f"n{i}", "kind": kind} for i, kind in enumerate(kinds)]
    draw(st.randoms(use_true_random=False)).shuffle(nodes)
    branches = {
        f"n{i}": branch
        for i in range(count)
        if (branch := draw(st.sampled_from([None, None, "x", "y", "error"]))) is not None
    }
    return parse({"nodes": nodes, "edges": edges}), branches


def _in_walk(made: Graph) -> set[str]:
    return {
        node.id
        for node in made.nodes.values()
        if node.kind != "note" or made.incoming[node.id] or made.outgoing[node.id]
    }


@settings(max_examples=300, derandomize=True, deadline=None)
@given(graphs(), st.randoms(use_true_random=False))
def test_every_node_runs_once_or_is_skipped_once_whatever_ends_first(
    drawn: tuple[Graph, dict[str, str]], pick: random.Random
) -> None:
    made, branches = drawn
    entries = entry_nodes(made, "manual")
    ran, skipped = walk(at_top(made), branches, pick)

    assert len({*ran, *skipped}) == len(ran) + len(skipped)
    assert {*ran, *skipped} == _in_walk(made)
    for node in _in_walk(made):
        taken = [edge for edge in made.incoming[node] if _taken(made, edge, ran, branches)]
        assert (node in ran) == (node in entries or bool(taken))
    again = walk(at_top(made), branches)
    assert (set(again[0]), set(again[1])) == (set(ran), set(skipped))


def _taken(made: Graph, edge: Any, ran: list[str], branches: dict[str, str]) -> bool:
    """The rule in other words than the code's."""
    if edge.source not in ran:
        return False
    branch = branches.get(edge.source)
    if branch == "error" or edge.source_handle == "error":
        return bool(branch == edge.source_handle)
    return branch is None or edge.source_handle in (None, branch)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(graphs(), st.randoms(use_true_random=False), st.integers(0, 9))
def test_a_walk_is_rebuilt_from_what_has_ended_in_whatever_order_that_is_read(
    drawn: tuple[Graph, dict[str, str]], pick: random.Random, length: int
) -> None:
    made, branches = drawn
    progress = at_top(made)
    ended: list[str] = []
    while (ready := progress.ready()) and len(ended) < length:
        ended.append(pick.choice(ready))
        progress.settle(ended[-1], branches.get(ended[-1]))

    rebuilt = at_top(made)
    place = {node: index for index, node in enumerate(made.nodes)}
    waiting = sorted(ended, key=lambda node: place[node])
    while waiting:  # in another order, in which a node still comes behind those that lead to it
        node = next(one for one in waiting if one in rebuilt.ready())
        rebuilt.settle(node, branches.get(node))
        waiting.remove(node)

    assert rebuilt.ready() == progress.ready()
    assert sorted(rebuilt.take_skipped()) == sorted(progress.take_skipped())


def test_a_run_begins_at_the_triggers_that_are_named() -> None:
    nodes = [{"id": name, "kind": "trigger", "subtype": "function"} for name in ("a", "b")]
    made = parse({"nodes": nodes, "edges": []})
    assert entry_nodes(made, "function", ["b"]) == {"b"}
    assert entry_nodes(made, "function", ["gone"]) == {"a", "b"}
    assert entry_nodes(made, "function") == {"a", "b"}
