"""What must be true of every run, once nobody works on it any more."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.ids import step_id
from benchmarks.server import Bench

# Whether the event ``a`` is of the time since its run was retried last, if it ever was.
_SINCE = """NOT EXISTS (
            SELECT FROM audit_events t WHERE t.run_id = a.run_id AND t.action = 'run.retried'
              AND t.created_at > a.created_at)"""

# Each query lists violations: a run's id, and what else is good to know.
CHECKS = {
    "steps that started after their run's end": """
        SELECT s.run_id, s.node_id, s.started_at - r.completed_at FROM steps s
        JOIN runs r ON r.id = s.run_id WHERE s.started_at > r.completed_at""",
    "steps left open": """
        SELECT s.run_id, s.node_id, s.status FROM steps s JOIN runs r ON r.id = s.run_id
        WHERE s.completed_at IS NULL AND r.lease_token IS NULL
          AND r.status IN ('completed', 'failed', 'cancelled')""",
    "runs held for ever": """
        SELECT id, status, locked_by, due_at FROM runs WHERE lease_token IS NOT NULL""",
    "runs without an end": """
        SELECT id, status FROM runs WHERE status NOT IN ('completed', 'failed', 'cancelled')""",
    "cancelled runs without exactly one audit event since they were retried": f"""
        SELECT r.id, count(a.id) FROM runs r
        LEFT JOIN audit_events a ON a.run_id = r.id AND a.action = 'run.cancelled' AND {_SINCE}
        WHERE r.status = 'cancelled' GROUP BY r.id HAVING count(a.id) <> 1""",
    "audit events of runs that were not cancelled": f"""
        SELECT r.id, r.status FROM runs r JOIN audit_events a ON a.run_id = r.id
        WHERE a.action = 'run.cancelled' AND r.status <> 'cancelled' AND {_SINCE}""",
    "finished nodes run twice": """
        SELECT run_id, node_id, count(*) FROM steps WHERE status = 'completed'
        GROUP BY run_id, node_id, parent_seq, iteration HAVING count(*) > 1""",
    "nodes started again after they finished": """
        SELECT s.run_id, s.node_id, s.seq FROM steps s JOIN steps d ON d.run_id = s.run_id
          AND d.node_id = s.node_id AND d.parent_seq IS NOT DISTINCT FROM s.parent_seq
          AND d.iteration IS NOT DISTINCT FROM s.iteration
        WHERE d.status = 'completed' AND s.seq > d.seq AND s.started_at IS NOT NULL""",
    "attempts that were started twice": """
        SELECT run_id, node_id, attempt, count(*) FROM steps WHERE started_at IS NOT NULL
        GROUP BY run_id, node_id, parent_seq, iteration, attempt HAVING count(*) > 1""",
    "steps whose times are out of order": """
        SELECT s.run_id, s.node_id, s.started_at, s.completed_at FROM steps s
        JOIN runs r ON r.id = s.run_id
        WHERE s.completed_at < s.started_at OR s.completed_at < r.created_at
           OR s.updated_at < s.completed_at OR s.started_at < r.started_at AND NOT EXISTS (
            SELECT FROM audit_events a WHERE a.run_id = r.id AND a.action = 'run.retried')""",
    "runs whose times are out of order": """
        SELECT id, status, created_at, started_at, completed_at FROM runs
        WHERE completed_at < started_at OR started_at < created_at OR updated_at < completed_at""",
    "runs that ended by themselves with a step that ended later": """
        SELECT s.run_id, s.node_id, s.status FROM steps s JOIN runs r ON r.id = s.run_id
        WHERE r.status IN ('completed', 'failed') AND s.completed_at > r.completed_at""",
    "completed runs whose end was not reached": """
        SELECT r.id, r.status FROM runs r WHERE r.status = 'completed' AND NOT EXISTS (
            SELECT FROM steps s WHERE s.run_id = r.id AND s.node_type = 'end'
              AND s.status = 'completed' AND s.parent_seq IS NULL AND s.seq > r.base_seq)""",
}


@dataclass(frozen=True, slots=True)
class Violations:
    """One kind of violation: how many there are, and some of them."""

    name: str
    count: int
    samples: list[Any]


def traces(bench: Bench) -> list[Violations]:
    """Every check of the database, with what it found; of runs that nobody retried.

    A retry from the start runs finished nodes again; ledger.py knows what came before it.
    """
    found = []
    for name, query in CHECKS.items():
        rows = bench.sql(query)
        found.append(Violations(name, len(rows), rows[:3]))
    return found


@dataclass(frozen=True, slots=True)
class Mark:
    """A line that a function left: when (ns since 1970), in which step, of which node."""

    at: int
    step: str
    node: str


def marks(path: Path) -> list[Mark]:
    """All lines of a file of marks."""
    if not path.exists():
        return []
    split = [line.split() for line in path.read_text().splitlines()]
    return [Mark(int(at), step, node) for at, step, node, _ in split]


def side_effects(bench: Bench, path: Path) -> list[Violations]:
    """What the functions did must be what the trace says, seen from the outside."""
    left = marks(path)
    steps = {
        step_id(run_id, seq): status
        for run_id, seq, status in bench.sql(
            "SELECT run_id, seq, status FROM steps WHERE node_type = 'function'"
            " AND started_at IS NOT NULL"
        )
    }
    counted = Counter(mark.step for mark in left)
    unrecorded = [step for step in counted if step not in steps]
    twice = [step for step, count in counted.items() if count > 1]
    done: set[tuple[str, str]] = set()
    again = []
    for mark in left:  # in the order of time, for one node
        node = (mark.step.rpartition("_")[0], mark.node)
        if node in done:
            again.append(mark)
        if steps.get(mark.step) == "completed":
            done.add(node)
    return [
        Violations("side effects of steps that never started", len(unrecorded), unrecorded[:3]),
        Violations("side effects twice in a step", len(twice), twice[:3]),
        Violations("side effects after the node had finished", len(again), again[:3]),
    ]


def added_up(*lists: list[Violations]) -> list[Violations]:
    """One for each name, in the order in which they came."""
    found: dict[str, Violations] = {}
    for one in (one for each in lists for one in each):
        known = found.get(one.name, Violations(one.name, 0, []))
        samples = [*known.samples, *one.samples][:3]
        found[one.name] = Violations(one.name, known.count + one.count, samples)
    return list(found.values())


def print_all(found: list[Violations]) -> bool:
    """Print what was found, with samples where it is not nothing; whether it is nothing."""
    for one in found:
        print(f"  {one.count:>6,}  {one.name}", flush=True)
        for sample in one.samples:
            print(f"          {sample}")
    return not any(one.count for one in found)
