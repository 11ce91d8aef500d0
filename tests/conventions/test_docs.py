"""The page on the lifecycle is the table of the code, and no other one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from app.domain.lifecycle import ACTIONS, RUN_STATUSES

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The script that makes the page."""
    spec = importlib.util.spec_from_file_location(
        "generate_lifecycle", DOCS / "generate_lifecycle.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lifecycle_page_is_what_the_table_makes(generator: ModuleType) -> None:
    assert (DOCS / "lifecycle.rst").read_text() == generator.page(), (
        "run python docs/generate_lifecycle.py"
    )


def test_the_page_tells_of_every_status_and_action(generator: ModuleType) -> None:
    page: str = generator.page()
    for status in RUN_STATUSES:
        assert f"* - ``{status}``" in page
    for action in ACTIONS:
        assert f"* - **{action.name}**" in page
        for source in action.sources:
            assert source in page
    assert set(generator._WHO) == {action.name for action in ACTIONS}
    assert set(generator._MEANINGS) == set(RUN_STATUSES)
