"""Secrets, signatures and tokens are compared in constant time, or looked up by their hash.

How long ``==`` takes tells how much of a guess is right. What this test can see is the names that
are compared: it finds what somebody writes by habit, not what somebody hides.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[2] / "app"

# Words of names that hold what nobody else may know, or its hash.
SECRET = re.compile(
    r"(^|_)(secret|signature|token|password|digest|hexdigest|sha256|api_key)s?($|_)"
)
# In these, whatever is compared with what a caller sends.
ADMITTING = ("services/webhooks.py", "services/callbacks.py", "services/keys.py", "api/auth.py")
GIVEN = re.compile(r"^(given|expected|known|hashed|found\.secret|proof\.\w+)$")
COMPARED = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)

# What only sounds like one: the name of a way to be admitted, the hash of a statement, a lease.
NO_SECRETS = {"_API_KEY", "_OWN_TOKENS", "self._digest", "lease_token"}
# Who may compare in constant time, and how often: a new place is to be looked at.
IN_CONSTANT_TIME = {"services/callbacks.py": 1, "services/webhooks.py": 2}


def _names(node: ast.AST) -> Iterator[str]:
    """What a side of a comparison is called: names, attributes, functions."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name | ast.Attribute):
            yield ast.unparse(part)


def suspicious(source: str, *, admitting: bool = False) -> list[str]:
    """The comparisons of what looks like a secret; all but those with None, '' and types."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if not isinstance(operator, COMPARED):
                continue
            names = {name for side in (left, right) for name in _names(side)} - NO_SECRETS
            if any(
                SECRET.search(name.rpartition(".")[2].lower()) or (admitting and GIVEN.match(name))
                for name in names
            ):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("expected_signature == sent", True),
        ("if a.secret != b: pass", True),
        ("hmac.new(k, b, h).hexdigest() == sent", True),
        ("sent in secrets", True),
        ("x = token_sha256 == y", True),
        ("token is None", False),
        ("hmac.compare_digest(secret, given)", False),
        ("tokens_of == 3", True),
        ("lease_token == 3", False),
        ("status == 200", False),
    ],
)
def test_a_comparison_of_secrets_is_seen(source: str, found: bool) -> None:
    assert bool(suspicious(source)) == found


def test_what_a_caller_sends_is_seen_where_callers_are_admitted() -> None:
    assert suspicious("expected == given", admitting=True)
    assert suspicious("expected == given") == []


def test_no_secret_is_compared_otherwise_than_in_constant_time() -> None:
    found = {}
    for path in sorted(APP.rglob("*.py")):
        name = path.relative_to(APP).as_posix()
        if told := suspicious(path.read_text(), admitting=name in ADMITTING):
            found[name] = told
    assert found == {}


def test_where_callers_are_admitted_is_compared_in_constant_time() -> None:
    """Keys are not compared at all: they are looked up by the hash of 256 random bits."""
    assert all((APP / name).exists() for name in ADMITTING)
    found = {
        path.relative_to(APP).as_posix(): count
        for path in APP.rglob("*.py")
        if (count := path.read_text().count("hmac.compare_digest("))
    }
    assert found == IN_CONSTANT_TIME
