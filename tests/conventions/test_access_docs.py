"""The pages on access and audit tell of what there is, and of nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from app.domain.roles import PERMISSIONS, TOLD, Permission

ROOT = Path(__file__).resolve().parents[2]
ACTION = r"(?:metronome|version|run|key|webhook)\.[a-z_]+"


def test_the_table_of_roles_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "access.rst").read_text()
    rows = re.findall(r"\* - ``(\w+)``\n     - (``.*``)\n", page)
    told = {role: set(re.findall(r"``(\w+)``", listed)) for role, listed in rows}
    assert told == {role: {str(one) for one in allowed} for role, allowed in PERMISSIONS.items()}
    for permission in Permission:
        assert f"   * - ``{permission}``\n     - " in page
        assert permission in TOLD


def test_every_action_that_is_written_is_told() -> None:
    page = (ROOT / "docs" / "audit.rst").read_text()
    told = set(re.findall(rf"``({ACTION})``", page))
    sources = [*(ROOT / "app" / "store").glob("*.py"), ROOT / "app" / "domain" / "lifecycle.py"]
    written = {
        action
        for source in sources
        for action in re.findall(rf"""["']({ACTION})["']""", source.read_text())
    }
    assert told == written
