from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import ValueRefused
from app.domain.jsonvalue import MAX_INT, MIN_INT, check_json, clean_text, dumps

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
)


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ("\x00", "input holds a NUL"),
        ({"a": ["x", "y\x00"]}, "input.a.1 holds a NUL"),
        ({"a": {"k\x00": 1}}, "input.a has a key with a NUL"),
        ({"a": "\ud800"}, "input.a holds a lone surrogate"),
        ({"a": {"\udfff": 1}}, "input.a has a key with a lone surrogate"),
        ([1.5, math.nan], "input.1 is nan"),
        ({"x": [None, -math.inf]}, "input.x.1 is -inf"),
        ({"n": MAX_INT + 1}, "input.n is an integer beyond 64 bits"),
        ({"n": MIN_INT - 1}, "input.n is an integer beyond 64 bits"),
        ({"n": 10**5000}, "input.n is an integer beyond 64 bits"),
        ({"a": {1: 2}}, "input.a has a key that is no text"),
        ({"a": {1, 2}}, "input.a is of the type set"),
        ({"a": object()}, "input.a is of the type object"),
    ],
)
def test_a_value_that_can_not_be_stored_is_refused_by_its_path(value: object, where: str) -> None:
    with pytest.raises(ValueRefused, match=where) as caught:
        check_json(value, "input", max_bytes=1000)
    caught.value.message.encode()
    assert "\x00" not in caught.value.message


@pytest.mark.parametrize(
    "value",
    [
        None,
        MAX_INT,
        MIN_INT,
        2**53 + 1,
        "\\u0000 written out",
        {"a": [1.5, None, True, "é\U0001f600"]},
        _nested(64),
        [[n] for n in range(100)],
    ],
)
def test_a_value_that_can_be_stored_comes_back_the_same(value: object) -> None:
    assert json.loads(dumps(value, "input", max_bytes=10_000)) == value


def test_nesting_has_a_limit_and_no_depth_is_an_accident() -> None:
    for depth in (65, 300, 100_000):
        with pytest.raises(ValueRefused, match="input is nested deeper than 64 levels"):
            check_json(_nested(depth), "input", max_bytes=10_000_000)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueRefused, match="nested deeper"):
        check_json(value, "input", max_bytes=1000)


def test_the_size_is_that_of_the_text_in_bytes() -> None:
    assert dumps("é" * 4, "input", max_bytes=10) == '"éééé"'
    for value in ("é" * 5, [2**60] * 9):
        with pytest.raises(ValueRefused, match="input is bigger than 10 bytes"):
            dumps(value, "input", max_bytes=10)


@given(_JSON)
@settings(deadline=None)
def test_any_value_is_either_refused_or_strict_json(value: object) -> None:
    try:
        made = dumps(value, "v", max_bytes=1_000_000)
    except ValueRefused:
        return
    assert "\\u0000" not in made.replace("\\\\", "")
    assert json.loads(made) == value


@pytest.mark.parametrize(
    ("text", "clean"),
    [("a\x00b", "a�b"), ("a\ud800", "a�"), ("\ud83d\ude00", "\U0001f600"), ("abcdef", "abc...")],
)
def test_a_text_from_outside_is_made_storable(text: str, clean: str) -> None:
    assert clean_text(text, 3) == clean
