"""The pages on nodes: every kind is there, and every workflow in them can be saved."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from app.domain.graph import check_shape
from app.nodes import REGISTRY

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("workflows.rst", "nodes.rst", "loops.rst", "expressions.rst")
_BLOCK = re.compile(r"^\.\. code-block:: json\n\n((?:(?:    .*)?\n)+)", re.MULTILINE)


@pytest.mark.parametrize("kind", REGISTRY)
def test_every_kind_is_in_the_table_of_kinds(kind: str) -> None:
    page = (DOCS / "nodes.rst").read_text()
    first = re.findall(r"^   \* - (``.*)\n     - .*\n     - ", page, re.MULTILINE)
    assert any(f"``{kind}``" in cell for cell in first)


@pytest.mark.parametrize("page", PAGES)
def test_every_workflow_in_the_pages_can_be_saved_and_run(page: str) -> None:
    for block in _BLOCK.findall((DOCS / page).read_text()):
        read = orjson.loads(block)
        if "nodes" not in read:
            continue
        assert check_shape(read, REGISTRY) == []
        for node in read["nodes"]:
            assert list(REGISTRY[node["kind"]].missing(node.get("config", {}))) == []
