"""Every code that a fault of a definition can have is told in docs/validation.rst."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PATTERNS = (
    r'issues\.add\(\s*\n?\s*"([a-z_]+)"',
    r'"(?:error|warning)",\s*"([a-z_]+)"',
    r'\bcode(?:: str)? = "([a-z_]+)"',
    r'\bcode="([a-z_]+)"',
    r'code, message = "([a-z_]+)"',
    r'code = "([a-z_]+)" if .* else "[a-z_]+"',
    r'code = "[a-z_]+" if .* else "([a-z_]+)"',
)
_FILES = (
    *("domain/shape.py", "domain/shape_edges.py", "domain/shape_nodes.py", "domain/nesting.py"),
    *("domain/publishable.py", "domain/names.py"),
    *("services/naming.py", "services/validation.py"),
)


def test_the_page_on_validation_tells_every_code() -> None:
    found: set[str] = set()
    for name in _FILES:
        source = (ROOT / "app" / name).read_text()
        found |= {code for pattern in _PATTERNS for code in re.findall(pattern, source)}
    assert len(found) > 40
    page = (ROOT / "docs" / "validation.rst").read_text()
    levels = {"error", "warning"}
    assert {code for code in found - levels if f"``{code}``" not in page} == set()
