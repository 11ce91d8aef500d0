"""Random actions of people and executors on a few runs, against a small model of the lifecycle.

The model knows of a run what the table of ``app.domain.lifecycle`` says, and who holds it. After
each action the database is read with plain SQL and compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from app.db import Database
from app.domain.lifecycle import (
    ACTIONS,
    APPROVE,
    BACKOFF,
    CANCEL,
    CANCELLED,
    CLAIM,
    CLAIMABLE,
    COMPLETED,
    FAILED,
    MOVES,
    PAUSE,
    QUEUED,
    RESUME,
    RETRY,
    RUNNING,
    SLEEP,
    TERMINAL,
    Action,
    allowed,
)
from app.store import boundary, leases
from app.store.boundary import Boundary, StepEnd, StepSleep, StepStart
from app.store.leases import Claimed, NextNode
from tests.store.world import LEASE, METRONOME, World, make_move

REQUESTS = [action for action in ACTIONS if action.audit]
# Most of what is asked brings a run back to life, so that there is something left to stop.
ASKED = [*REQUESTS, RESUME, RESUME, RESUME, APPROVE, APPROVE, RETRY, RETRY, RETRY, RETRY, RETRY]
RUNS = 3
DEEDS = ["claim", "claim", "go on", "go on", "go on", "go on", "move", "move", "let go"]
DEEDS += ["go on", "go on", "heartbeat", "time passes", "time passes", "sweep", "all die"]

Lost = tuple[str, Claimed, int | None]  # a run, a claim on it that was lost, and where that was


@dataclass
class Model:
    """What ought to be true of one run."""

    id: str
    status: str = QUEUED
    due: bool = True
    holder: Claimed | None = None
    in_flight: int | None = None  # the step that the holder is at
    parked: set[int] = field(default_factory=set)
    backs_off: bool = False
    seq: int = 0
    audits: list[str] = field(default_factory=list)

    def next_seq(self) -> int:
        """The number of a new step."""
        self.seq += 1
        return self.seq


class Lifecycle(RuleBasedStateMachine):
    """People and executors; ``zombies`` are claims that have been lost."""

    zombies: Bundle[Lost] = Bundle("zombies")
    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.database)
        self.connection = self.world.raw()
        self.runs: dict[str, Model] = {}
        self.ended: dict[tuple[str, int], dict[str, Any]] = {}
        self.touched: dict[str, Any] = {}

    def teardown(self) -> None:
        self.world.close()

    @initialize()
    def queue(self) -> None:
        """Begin with a few queued runs and nothing else."""
        for table in ("runs", "steps", "audit_events"):
            self.world.execute(f"DELETE FROM {table}")
        for _ in range(RUNS):
            run_id = self.world.put(max_attempts="2")
            self.runs[run_id] = Model(run_id)

    def pick(self, number: int) -> Model:
        """One of the runs."""
        return list(self.runs.values())[number % len(self.runs)]

    def held(self) -> list[Model]:
        """The runs that an executor holds."""
        return [run for run in self.runs.values() if run.holder is not None]

    # -- people

    @rule(number=st.integers(0, 99), action=st.sampled_from(ASKED))
    def request(self, number: int, action: Action) -> None:
        """Somebody asks for an action."""
        run = self.pick(number)
        before = self.world.everything()
        result = self.world.done(action, run.id)

        assert result.moved == allowed(action, run.status)
        if not result.moved:
            assert result.run.status == run.status
            assert self.world.everything() == before
            return
        assert action.audit is not None
        run.audits.append(action.audit)
        was, run.status = run.status, action.target
        assert result.run.status == run.status
        if run.holder is None:
            slept = was == RUNNING or run.backs_off
            if run.status not in CLAIMABLE:
                run.due = False
            elif not (action is RESUME and run.backs_off):
                run.due = True
            if action is PAUSE:
                run.backs_off = slept
            elif action is not RESUME:
                run.backs_off = False
        if action is CANCEL:
            run.parked.clear()
        flying = () if run.in_flight is None else (f"n{run.in_flight}",)
        assert result.in_flight == flying

    # -- executors

    @rule(
        target=zombies,
        deed=st.sampled_from(DEEDS),
        number=st.integers(0, 99),
        end=st.sampled_from([COMPLETED, FAILED, "sleeps", "sleeps", "wakes"]),
        move=st.sampled_from(MOVES),
        whose=st.sets(st.integers(0, RUNS - 1), min_size=1),
    )
    def executor(self, deed: str, number: int, end: str, move: Action, whose: set[int]) -> Any:
        """One rule for all that executors do: each of them makes sense only among the others."""
        if deed == "claim":
            return multiple(*self.claim(1 + number % RUNS))
        if deed == "sweep":
            return multiple(*self.sweep())
        if deed == "all die":
            self.time_passes(set(range(RUNS)))
            return multiple(*self.sweep(), *self.claim(RUNS))
        if deed == "time passes":
            self.time_passes(whose)
        elif self.held():
            if deed == "go on":
                self.go_on(number, end)
            elif deed == "move":
                self.move(number, move, end == "sleeps")
            elif deed == "let go":
                self.let_go(number)
            else:
                self.heartbeat(number)
        return multiple()

    def claim(self, limit: int) -> list[Lost]:
        """An executor looks for work."""
        due = {run.id for run in self.runs.values() if run.due and run.status in CLAIM.sources}
        claimed = leases.claim(self.connection, "executor-1", limit=limit, lease=LEASE)
        assert {one.id for one in claimed} <= due
        assert len(claimed) == min(limit, len(due))
        lost = []
        for one in claimed:
            run = self.runs[one.id]
            assert one.lost == (run.holder is not None)
            if run.holder is not None:
                lost.append((run.id, run.holder, run.in_flight))
                leases.close_lost(self.connection, one.id, one.token)
                run.in_flight = None
            run.status, run.due, run.holder, run.backs_off = CLAIM.target, False, one, False
        return lost

    def go_on(self, number: int, end: str) -> None:
        """The holder is between two nodes."""
        run = self.held()[number % len(self.held())]
        assert run.holder is not None
        ends, sleeps = self._leave(run, end)
        seq = run.next_seq()
        verdict = self._write(run.holder, ends, sleeps, start=seq)
        if run.status == RUNNING:
            assert verdict.answer == "go"
            run.in_flight = seq
        else:
            assert (verdict.answer, verdict.status) == ("stopped", run.status)

    def move(self, number: int, move: Action, sleeps: bool) -> None:
        """The holder ends its claim with a move."""
        run = self.held()[number % len(self.held())]
        assert run.holder is not None
        ends, asleep = self._leave(run, "sleeps" if sleeps and move is SLEEP else COMPLETED)
        if move.target in TERMINAL and run.status in move.sources:
            ends += [StepEnd(seq, CANCELLED) for seq in sorted(run.parked)]
            run.parked.clear()
        verdict = self._write(run.holder, ends, asleep, move=move)
        if not allowed(move, run.status):
            assert (verdict.answer, verdict.status) == ("stopped", run.status)
            return
        assert verdict.answer == "go"
        run.status, run.holder, run.due = move.target, None, False
        run.backs_off = move in (BACKOFF, SLEEP)

    def _leave(self, run: Model, end: str) -> tuple[list[StepEnd], list[StepSleep]]:
        """End, or park, the step in flight; or wake one that sleeps beside it."""
        assert run.holder is not None
        ends: list[StepEnd] = []
        if end == "wakes" and run.parked:
            ends.append(StepEnd(run.parked.pop(), COMPLETED))
        if run.in_flight is None:
            return ends, []
        if end == "sleeps":
            sleep = StepSleep(run.in_flight, run.holder.now.replace(year=2999))
            if run.status not in TERMINAL:  # else it stays the holder's to end
                run.parked.add(run.in_flight)
                run.in_flight = None
            return ends, [sleep]
        ends.append(StepEnd(run.in_flight, end if end == FAILED else COMPLETED, output="{}"))
        run.in_flight = None
        return ends, []

    def _write(
        self,
        holder: Claimed,
        ends: list[StepEnd],
        sleeps: list[StepSleep],
        *,
        start: int | None = None,
        move: Action | None = None,
    ) -> boundary.Verdict:
        return self.world.write(
            Boundary(
                holder.id,
                METRONOME,
                holder.token,
                ends=ends,
                sleeps=sleeps,
                starts=[] if start is None else [StepStart(start, f"n{start}", "end", 1)],
                move=None if move is None else make_move(holder, move.name),
            )
        )

    def let_go(self, number: int) -> None:
        """The holder gives the run back, whatever its status."""
        run = self.held()[number % len(self.held())]
        assert run.holder is not None
        following = NextNode(run.next_seq(), "following", "end", 1)
        told = leases.let_go(
            self.connection, run.id, run.holder.token, nexts=[following], error="let go"
        )
        assert told == run.status
        run.holder, run.in_flight, run.due = None, None, run.status in CLAIMABLE
        if run.status == CANCELLED:
            run.parked.clear()

    def heartbeat(self, number: int) -> None:
        """The holder renews its lease."""
        run = self.held()[number % len(self.held())]
        assert run.holder is not None
        held = [(run.id, run.holder.token)]
        assert leases.renew(self.connection, held, lease=LEASE) == {run.id: run.status}
        run.due = False

    def time_passes(self, numbers: set[int]) -> None:
        """Leases end, or backoffs, or sleeps."""
        for number in numbers:
            run = self.pick(number)
            if run.holder is not None or run.status in CLAIMABLE:
                self.world.expire(run.id)
                run.due = True

    def sweep(self) -> list[Lost]:
        """An executor tidies up behind the dead."""
        dead = [
            run
            for run in self.runs.values()
            if run.holder is not None and run.due and run.status not in CLAIMABLE
        ]
        assert set(leases.sweep(self.connection)) == {run.id for run in dead}
        lost = []
        for run in dead:
            assert run.holder is not None
            lost.append((run.id, run.holder, run.in_flight))
            run.holder, run.in_flight, run.due = None, None, False
        return lost

    @rule(zombie=consumes(zombies), move=st.sampled_from(MOVES))
    def zombie_writes(self, zombie: Lost, move: Action) -> None:
        """An executor that lost its lease comes back: nothing changes."""
        run_id, holder, was_at = zombie
        before = self.world.everything()
        ends = [] if was_at is None else [StepEnd(was_at, COMPLETED)]
        sleeps = [StepSleep(seq, holder.now) for seq in sorted(self.runs[run_id].parked)]
        assert self._write(holder, ends, sleeps, start=10_000).answer == "lease_lost"
        assert self._write(holder, ends, [], move=move).answer == "lease_lost"
        connection = self.connection
        assert leases.renew(connection, [(run_id, holder.token)], lease=LEASE) == {}
        assert leases.let_go(connection, run_id, holder.token, error="late") is None
        leases.close_all(connection, run_id, holder.token, "late")
        assert self.world.everything() == before

    # -- what is always true

    @invariant()
    def the_database_is_as_the_table_says(self) -> None:
        """Status, holder and audit events of each run; rows agree with each other."""
        rows = {row["id"]: row for row in self.world.query("SELECT * FROM runs")}
        for run in self.runs.values():
            row = rows[run.id]
            assert row["status"] == run.status
            assert row["lease_token"] == (run.holder.token if run.holder else None)
            assert (row["completed_at"] is not None) == (run.status in TERMINAL)
            assert row["updated_at"] >= self.touched.get(run.id, row["updated_at"])
            self.touched[run.id] = row["updated_at"]
        events = self.world.query("SELECT run_id, action FROM audit_events ORDER BY created_at")
        for run in self.runs.values():
            assert [one["action"] for one in events if one["run_id"] == run.id] == run.audits

    @invariant()
    def the_trace_tells_the_truth(self) -> None:
        """Ended steps stay as they are; nothing starts, or is left open, behind an end."""
        steps = {
            (row["run_id"], row["seq"]): row for row in self.world.query("SELECT * FROM steps")
        }
        for key, row in self.ended.items():
            assert steps[key] == row
        self.ended = {key: row for key, row in steps.items() if row["completed_at"] is not None}
        for run in self.runs.values():
            open_steps = {
                seq
                for (run_id, seq), row in steps.items()
                if run_id == run.id and row["completed_at"] is None
            }
            assert open_steps == run.parked | ({run.in_flight} - {None})
            if run.status in TERMINAL and run.holder is None:
                assert not open_steps
        late = self.world.query(
            "SELECT * FROM runs r JOIN steps s ON s.run_id = r.id"
            " WHERE s.started_at > r.completed_at"
        )
        assert late == []


@pytest.mark.timeout(1200)  # a failure takes its time: it is made as short as it can be
def test_people_and_executors_keep_to_the_table(db: Database) -> None:
    class Machine(Lifecycle):
        database = db

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=110,
            stateful_step_count=50,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
