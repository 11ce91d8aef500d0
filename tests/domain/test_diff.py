from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.diff import Changes, compare

SDK: dict[str, Any] = {"id": "a", "kind": "http", "label": "A", "config": {"url": "u"}}
BUILDER: dict[str, Any] = {
    "id": "a",
    "type": "metronomeNode",
    "data": {"kind": "http", "label": "A", "config": {"url": "u"}},
}
NOTHING = Changes((), (), ())


def nodes(base: list[dict[str, Any]], target: list[dict[str, Any]]) -> Changes:
    return compare({"nodes": base, "edges": []}, {"nodes": target}).nodes


def edges(base: list[dict[str, Any]], target: list[dict[str, Any]]) -> Changes:
    return compare({"edges": base}, {"nodes": [], "edges": target}).edges


def test_what_is_added_and_removed_is_shown_as_it_is_written() -> None:
    one, two = {"id": "b", "kind": "note"}, {"id": "c", "kind": "note"}
    found = nodes([SDK, one], [two, SDK])
    assert found == Changes(added=(two,), removed=(one,), changed=())


def test_a_changed_node_is_told_by_its_fields() -> None:
    after = {**SDK, "config": {"url": "v"}, "position": {"x": 1}}
    (changed,) = nodes([SDK], [after]).changed
    assert (changed.id, changed.fields) == ("a", ("config", "position"))
    assert (changed.before, changed.after) == (SDK, after)


def test_the_two_forms_of_a_node_are_the_same() -> None:
    assert nodes([SDK], [BUILDER]) == nodes([BUILDER], [SDK]) == NOTHING
    moved = {**BUILDER, "data": {**BUILDER["data"], "label": "B"}}
    (changed,) = nodes([SDK], [moved]).changed
    assert changed.fields == ("label",)


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (1, True, False),
        (0, False, False),
        ("1", 1, False),
        (None, 0, False),
        (None, [], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([1, 2], [2, 1], False),
    ],
)
def test_values_are_compared_as_json(before: Any, after: Any, same: bool) -> None:
    one, two = ({"id": "a", "kind": "x", "config": {"v": value}} for value in (before, after))
    assert (nodes([one], [two]) == NOTHING) is same


def test_what_is_absent_is_as_if_it_were_null() -> None:
    bare = {"id": "a", "kind": "end"}
    full: dict[str, Any] = {
        "id": "a",
        "kind": "end",
        "label": None,
        "description": "",
        "config": {},
    }
    assert nodes([bare], [full]) == NOTHING


def test_the_order_of_nodes_is_no_difference() -> None:
    other = {"id": "b", "kind": "note"}
    assert nodes([SDK, other], [other, SDK]) == NOTHING


def test_edges_are_matched_by_their_ids() -> None:
    one = {"id": "e", "source": "a", "target": "b"}
    (changed,) = edges([one], [{**one, "target": "c"}]).changed
    assert (changed.id, changed.fields) == ("e", ("target",))


def test_edges_without_ids_are_matched_by_what_they_join() -> None:
    one = {"source": "a", "target": "b"}
    labelled = {**one, "label": "yes"}
    assert edges([one], [dict(one)]) == NOTHING
    (changed,) = edges([one], [labelled]).changed
    assert (changed.id, changed.fields) == (None, ("label",))
    handle = {**one, "sourceHandle": "else"}
    found = edges([one], [handle])
    assert (found.added, found.removed) == ((handle,), (one,))
    assert edges([one, one], [one]).removed == (one,)


names = st.sampled_from("abcdef")
definitions = st.builds(
    lambda ids, pairs: {
        "nodes": [{"id": id, "kind": kind} for id, kind in ids.items()],
        "edges": [{"source": source, "target": target} for source, target in pairs],
    },
    st.dictionaries(names, st.sampled_from(["note", "end"])),
    st.lists(st.tuples(names, names), max_size=6),
)


@given(definitions, definitions)
def test_the_way_back_is_the_opposite(one: dict[str, Any], two: dict[str, Any]) -> None:
    there, back = compare(one, two), compare(two, one)
    for forth, backwards in ((there.nodes, back.nodes), (there.edges, back.edges)):
        assert sorted(map(str, forth.added)) == sorted(map(str, backwards.removed))
        assert sorted(map(str, forth.removed)) == sorted(map(str, backwards.added))
        assert {c.id for c in forth.changed} == {c.id for c in backwards.changed}
    same = compare(one, copy.deepcopy(one))
    assert same.nodes == same.edges == NOTHING
