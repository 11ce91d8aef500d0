"""What the database says of all runs, in the model's terms, and what is always true of its rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson

from app.domain.lifecycle import CLAIMABLE, PAUSED, TERMINAL, sql_list
from tests.lifecycle.model import LATER, NEVER, NONE, NOW, Forest, ModelRun, ModelStep
from tests.store.world import Row, World

State = dict[str, Any]


def _relation(column: str) -> str:
    return f"""CASE WHEN {column} IS NULL THEN '{NONE}' WHEN {column} = 'infinity' THEN '{NEVER}'
        WHEN {column} <= clock_timestamp() THEN '{NOW}' ELSE '{LATER}' END"""


_RUNS = f"""
SELECT id, parent_run_id, depth, status, lease_token, {_relation("due_at")} AS due,
    {_relation("next_attempt_at")} AS wake, {_relation("deadline_at")} AS deadline,
    started_at IS NOT NULL AS started, signalled, in_doubt, paused_by, attempt_due, attempt_count,
    max_attempts, takeovers, base_seq, confirmed_seq,
    ARRAY(SELECT action FROM audit_events a WHERE a.run_id = r.id ORDER BY action) AS audits,
    (SELECT json_agg(json_build_array(s.seq, s.status, s.lease_token, {_relation("s.wake_at")},
        s.unsafe, s.connector IS NOT NULL, s.result IS NOT NULL) ORDER BY s.seq)
     FROM steps s WHERE s.run_id = r.id) AS steps
FROM runs r ORDER BY id
"""


def found(world: World, *, tokens: bool = True) -> State:
    """The state of all runs; without ``tokens`` it is only told whether there is one."""
    state: State = {}
    for row in world.query(_RUNS):
        state[row.pop("id")] = row
        row["lease_token"] = _token(row["lease_token"], tokens)
        row["steps"] = [
            [seq, status, _token(token, tokens), *rest]
            for seq, status, token, *rest in orjson.loads(row["steps"] or "[]")
        ]
    told = world.query("SELECT run_id, seq, event FROM outbox")
    state["outbox"] = Counter((row["run_id"], row["seq"], row["event"]) for row in told)
    return state


def _token(token: str | None, tokens: bool) -> object:
    return token if tokens else token is not None


def predicted(forest: Forest, *, tokens: bool = True) -> State:
    """The same, as the model has it."""
    state: State = {run.id: _run(run, tokens) for run in forest.runs.values()}
    state["outbox"] = Counter(forest.outbox)
    return state


def _run(run: ModelRun, tokens: bool) -> Row:
    return {
        "parent_run_id": run.parent,
        "depth": run.depth,
        "status": run.status,
        "lease_token": _token(run.token, tokens),
        "due": run.due,
        "wake": run.wake,
        "deadline": run.deadline,
        "started": run.started,
        "signalled": run.signalled,
        "in_doubt": run.in_doubt,
        "paused_by": run.paused_by,
        "attempt_due": run.attempt_due,
        "attempt_count": run.attempts,
        "max_attempts": run.max_attempts,
        "takeovers": run.takeovers,
        "base_seq": run.base_seq,
        "confirmed_seq": run.confirmed_seq,
        "audits": sorted(run.audits),
        "steps": [_step(step, tokens) for _, step in sorted(run.steps.items())],
    }


def _step(step: ModelStep, tokens: bool) -> list[object]:
    token = _token(step.token, tokens)
    told = [step.unsafe, step.connector, step.told]
    return [step.seq, step.status, token, step.wake, *told]


def difference(found: State, expected: State) -> list[str]:
    """Where two states are not the same, in words."""
    told = []
    for key in sorted({*found, *expected}):
        one, other = found.get(key), expected.get(key)
        if isinstance(one, dict) and isinstance(other, dict) and key != "outbox":
            names = [name for name in one if one[name] != other[name]]
            told += [f"{key}.{name}: {one[name]}, expected {other[name]}" for name in names]
        elif one != other:
            told.append(f"{key}: {one}, expected {other}")
    return told


# Each lists violations.
_NEVER = {
    "a step that started behind the end of its run, or of one above": """
        WITH RECURSIVE line (id, above) AS (
            SELECT id, id FROM runs
            UNION ALL
            SELECT l.id, r.parent_run_id FROM line l JOIN runs r ON r.id = l.above
            WHERE r.parent_run_id IS NOT NULL
        )
        SELECT s.run_id, s.seq, a.id FROM steps s JOIN line l ON l.id = s.run_id
        JOIN runs a ON a.id = l.above WHERE s.started_at > a.completed_at""",
    "a step that started in a pause": f"""
        SELECT s.run_id, s.seq FROM steps s JOIN runs r ON r.id = s.run_id
        WHERE r.status = '{PAUSED}' AND s.started_at > r.updated_at""",
    "a step that is open in a run that has ended and that nobody holds": f"""
        SELECT s.run_id, s.seq, s.status FROM steps s JOIN runs r ON r.id = s.run_id
        WHERE r.status IN ({sql_list(TERMINAL)}) AND r.lease_token IS NULL
          AND s.completed_at IS NULL""",
    "a step in flight under a claim that is over": """
        SELECT s.run_id, s.seq FROM steps s JOIN runs r ON r.id = s.run_id
        WHERE s.lease_token IS NOT NULL AND r.lease_token IS NULL""",
    "an open step from before a retry, in a run that nobody holds": """
        SELECT s.run_id, s.seq FROM steps s JOIN runs r ON r.id = s.run_id
        WHERE s.completed_at IS NULL AND s.seq <= r.base_seq AND r.lease_token IS NULL""",
    "a run that goes on below one that has ended": f"""
        SELECT c.id, c.status, p.id, p.status FROM runs c JOIN runs p ON p.id = c.parent_run_id
        WHERE p.status IN ({sql_list(TERMINAL)}) AND c.status NOT IN ({sql_list(TERMINAL)})""",
    "a run that is paused by nobody, or by somebody and not paused": f"""
        SELECT id, status FROM runs WHERE (status = '{PAUSED}') <> (paused_by IS NOT NULL)""",
    "a run that is in doubt, and that somebody holds": """
        SELECT id FROM runs WHERE in_doubt AND lease_token IS NOT NULL""",
    "a run that waits for ever, with nothing to wait for": f"""
        SELECT r.id FROM runs r
        WHERE r.status IN ({sql_list(CLAIMABLE)}) AND r.due_at = 'infinity' AND NOT EXISTS (
            SELECT FROM steps s WHERE s.run_id = r.id AND s.completed_at IS NULL)""",
}
_CHECK = "\nUNION ALL\n".join(
    f"SELECT '{name}' AS what, CAST(json_agg(v) AS text) AS which FROM ({query}) v"
    " HAVING count(*) > 0"
    for name, query in _NEVER.items()
)


def violations(world: World) -> list[Row]:
    """What can never be, and is."""
    return world.query(_CHECK)


class Witness:
    """Remembers rows that may not change: steps that have ended, runs that are over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._steps: dict[tuple[str, int], Row] = {}
        self._runs: dict[str, Row] = {}

    def look(self) -> None:
        """Compare with the last look, and remember what is there now."""
        steps = {
            (row["run_id"], row["seq"]): row
            for row in self._world.query("SELECT * FROM steps WHERE completed_at IS NOT NULL")
        }
        for key, row in self._steps.items():
            assert _but_late_callbacks(steps.get(key, {})) == _but_late_callbacks(row)
        runs = {row["id"]: row for row in self._world.query("SELECT * FROM runs")}
        for run_id, row in self._runs.items():
            now = runs[run_id]
            if row["status"] in TERMINAL and now["status"] in TERMINAL:
                assert _but_its_lease(now, row) == _but_its_lease(row, row)
            if now["status"] != row["status"]:
                assert now["updated_at"] > row["updated_at"], (row, now)
        self._steps, self._runs = steps, runs


def _but_late_callbacks(row: Row) -> Row:
    """A callback that comes too late is kept in the metadata, and changes nothing else."""
    return {name: value for name, value in row.items() if name != "metadata"}


def _but_its_lease(row: Row, before: Row) -> Row:
    """Whoever still holds a run that is over gives it back."""
    if before["lease_token"] is None:
        return row
    changing = ("lease_token", "locked_by", "locked_at", "due_at")
    return {name: value for name, value in row.items() if name not in changing}


def lost_wake_ups(forest: Forest) -> list[str]:
    """The runs that have something to look at, and that no claim would take."""
    return [
        run.id
        for run in forest.runs.values()
        if run.token is None and run.status in CLAIMABLE and not run.attempt_due
        if run.due != NOW and any(forest.has_news(step) for step in run.steps.values())
    ]


def unsaid_doubts(forest: Forest) -> list[str]:
    """The runs that go on although nobody knows whether a node has run."""
    return [
        run.id
        for run in forest.runs.values()
        if run.unsure and not run.in_doubt and run.status not in TERMINAL
    ]
