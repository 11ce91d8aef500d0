"""A run's status is written in few places, from the table of ``app.domain.lifecycle`` alone.

What these tests can see is the text of the code: SQL in strings and calls of SQLAlchemy. They find
what somebody writes by habit, not what somebody hides.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.lifecycle import ACTIONS, MOVES, RUN_STATUSES, SKIPPED, STEP_STATUSES

APP = Path(__file__).resolve().parents[2] / "app"
FILES = sorted(APP.rglob("*.py"))

# Statement and file: where runs are written, and whether that writes the status.
WRITERS = {
    ("INSERT", "store/starts.py"): [True],  # a new run is queued
    ("UPDATE", "store/runs.py"): [False],  # attach
    ("UPDATE", "store/transitions.py"): [True, True, False, True],  # cancel, pause (twice), resume
    ("UPDATE", "store/cancels.py"): [True],  # of a run that stands alone
    ("UPDATE", "store/retries.py"): [True, True],  # retry, and cancel of what is below
    ("UPDATE", "store/decisions.py"): [True],
    ("UPDATE", "store/trees.py"): [False],  # the signal to the run above
    ("UPDATE", "store/callbacks.py"): [False],  # the same to the run itself
    ("UPDATE", "store/boundary_statement.py"): [True, False],  # a move; the signal
    ("INSERT", "store/boundary_statement.py"): [True],  # a nested run is queued
    ("UPDATE", "store/leases.py"): [True, False, True],  # claim; renew; let_go
    ("UPDATE", "store/liveness.py"): [False],  # the lease of a dead executor has ended
    ("UPDATE", "store/sweeps.py"): [False],  # nobody holds the run any more
    ("UPDATE", "store/concurrency.py"): [False],  # a place
}

STATEMENTS = sorted({file.removeprefix("store/") for _, file in WRITERS})

# The command line is a client: it reads the statuses of the wire, as any other client has to.
CLIENTS = ("cli",)
# The same words where they are not the status of a run or a step.
OTHER_MEANINGS = {
    "store/schema/workflows.py": {"paused"},  # a metronome's status
    "store/metronomes.py": {"paused"},  # the same
    "store/schema/triggers.py": {"failed", "paused"},  # a delivery, a workflow
    "store/trigger_events.py": {"failed"},  # the same
    "api/dump/schedules.py": {"paused"},  # whether a schedule is
    "domain/stop.py": {"cancelled", "paused"},  # why a node is to stop
    "engine/holds.py": {"cancelled"},  # the same
    "domain/models.py": {"cancelled", "paused"},  # what a cancel, or a pause, came to
    "services/transitions.py": {"cancelled", "paused"},  # the same
    "api/transitions.py": {"cancelled", "paused"},  # the same
    "api/schemas/transitions.py": {"failed"},  # where a retry begins
}


def _name(path: Path) -> str:
    return path.relative_to(APP).as_posix()


def _texts(path: Path) -> Iterator[str]:
    """The strings of a file; what an f-string fills in stands as ``{...}``. No docstrings."""
    tree = ast.parse(path.read_text())
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inside.add(id(node.value))  # a docstring
        elif isinstance(node, ast.JoinedStr):
            inside.update(id(part) for part in node.values)
            yield "".join(
                str(part.value)
                if isinstance(part, ast.Constant)
                else "{" + ast.unparse(getattr(part, "value", part)) + "}"
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in inside:
            yield str(node.value)


_WRITE = re.compile(
    r"\b(UPDATE|INSERT\s+INTO|MERGE\s+INTO)\s+(?:ONLY\s+)?(?:public\.)?runs\b(?:\s+AS)?(?:\s+\w+)??"
    r"(?:\s+SET\b(?P<set>.*?)(?=\bFROM\b|\bWHERE\b|\bRETURNING\b|$)|\s*\((?P<columns>[^)]*)\))",
    re.IGNORECASE | re.DOTALL,
)
_STATUS = re.compile(r"(?<![\w.])status\b\s*=")


def writes(text: str) -> Iterator[tuple[str, bool]]:
    """The statements in ``text`` that write runs, and whether each may write a status."""
    for found in _WRITE.finditer(text):
        columns = found["columns"]
        if columns is not None:
            yield found[1].split()[0].upper(), "status" in re.split(r"\W+", columns)
        else:
            changes = found["set"].strip()
            yield "UPDATE", bool(_STATUS.search(changes)) or changes.startswith("{")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("UPDATE runs SET status = 'x' WHERE id = 1", [("UPDATE", True)]),
        ("update runs r set a = 1, status='x'", [("UPDATE", True)]),
        ("UPDATE runs r SET {', '.join(changes)} WHERE r.id = 1", [("UPDATE", True)]),
        ("UPDATE runs SET a = 1 WHERE status = 'x'", [("UPDATE", False)]),
        ("UPDATE steps SET status = 'x' FROM runs WHERE 1", []),
        ("INSERT INTO runs AS r (id, status) SELECT 1", [("INSERT", True)]),
        ("SELECT * FROM runs FOR NO KEY UPDATE", []),
    ],
)
def test_a_write_is_seen(text: str, found: list[tuple[str, bool]]) -> None:
    assert list(writes(text)) == found


def test_runs_are_written_where_the_design_says_and_nowhere_else() -> None:
    found: dict[tuple[str, str], list[bool]] = {}
    for path in FILES:
        for text in _texts(path):
            for statement, status in writes(text):
                found.setdefault((statement, _name(path)), []).append(status)
    assert found == WRITERS


_ASSIGNED = re.compile(r"(?<![\w.])status\s*=\s*(.*?)(?=,\s*\w+\s*=|$)", re.DOTALL)


def test_every_written_status_is_a_target_of_the_table() -> None:
    """Not a word of its own, but what the table names; else the run stays as it is."""
    for path in FILES:
        for text in _texts(path):
            for found in _WRITE.finditer(text):
                for assigned in _ASSIGNED.findall(found["set"] or ""):
                    assert ".target" in assigned, (_name(path), assigned)
                    ends = re.findall(r"(?:THEN|ELSE)\s+(\S+)", assigned) or [assigned.strip()]
                    for end in ends:
                        assert end == "r.status" or end.strip("'{}").endswith(".target"), end


def test_every_new_run_is_queued() -> None:
    for file in ("store/starts.py", "store/boundary_statement.py"):
        inserts = [text for text in _texts(APP / file) if "INSERT INTO runs" in text]
        assert inserts
        for text in inserts:
            assert re.search(r"status.*?\)\s*SELECT.*?'\{QUEUED\}'", text, re.DOTALL), file


def test_every_action_is_taken_somewhere_in_the_store() -> None:
    """By its own row of the table, or with all moves of the executor."""
    texts = " ".join((APP / "store" / name).read_text() for name in STATEMENTS)
    for action in ACTIONS:
        assert action in MOVES or re.search(rf"\b{action.name.upper()}\b", texts), action.name


def test_nobody_writes_runs_through_sqlalchemy() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            first = ast.unparse(node.args[0]) if node.args else ""
            written = called in ("update", "insert") and first.endswith("runs")
            written |= called.endswith(("runs.update", "runs.insert"))
            assert not written, f"{_name(path)}:{node.lineno}"


@pytest.mark.parametrize(
    "path", [path for path in FILES if not _name(path).startswith(CLIENTS)], ids=_name
)
def test_only_the_lifecycle_spells_statuses(path: Path) -> None:
    """Elsewhere they are its names, in Python and in SQL, so that each use can be found."""
    if _name(path) == "domain/lifecycle.py":
        return
    words = "|".join(STEP_STATUSES)
    found = set()
    for text in _texts(path):
        if text in STEP_STATUSES:
            found.add(text)
        found.update(re.findall(rf"'({words})'", text))
    assert found == OTHER_MEANINGS.get(_name(path), set())


def test_a_steps_statuses_are_those_of_a_run_and_skipped() -> None:
    assert set(STEP_STATUSES) == {*RUN_STATUSES, SKIPPED}
