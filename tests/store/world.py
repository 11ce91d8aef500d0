"""A database with runs in any state, and eyes on every row of it: what the store's tests share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import psycopg2.extras

from app.db import Database, RawConnection
from app.domain import lifecycle
from app.domain.lifecycle import Action
from app.domain.models import Actor, Decided, Decision, Transitioned
from app.ids import new_id
from app.store import boundary, cancels, decisions, leases, retries, transitions
from app.store.boundary import Boundary, Move, StepEnd, StepPark, StepStart, Verdict
from app.store.leases import Claimed
from tests.processes import wait_for

P = ParamSpec("P")
T = TypeVar("T")
Row = dict[str, Any]

ORGANIZATION = "org_a"
METRONOME = "met_a"
ACTOR = Actor(key_id="key_a", user_id="user_a", organization_id=ORGANIZATION)
APPROVED = Decision(approved=True)
LEASE = 60.0  # seconds: long enough to never end within a test that doesn't ask for it

_NOW = "clock_timestamp()"
_LATER = "clock_timestamp() + interval '1 hour'"

# What a run of each status has in its columns while nobody holds it, as SQL expressions.
_FREE: dict[str, dict[str, str]] = {
    lifecycle.QUEUED: {"due_at": _NOW},
    lifecycle.RUNNING: {  # a run of which a node sleeps
        "due_at": _LATER,
        "started_at": _NOW,
        "next_attempt_at": _LATER,
        "attempt_count": "1",
        "attempt_due": "false",
    },
    lifecycle.WAITING_APPROVAL: {
        "due_at": "'infinity'",
        "started_at": _NOW,
        "attempt_count": "1",
        "attempt_due": "false",
    },
    lifecycle.PAUSED: {
        "due_at": "NULL",
        "started_at": _NOW,
        "attempt_count": "1",
        "attempt_due": "false",
    },
    **{
        status: {
            "due_at": "NULL",
            "started_at": _NOW,
            "completed_at": _NOW,
            "attempt_count": "1",
            "attempt_due": "false",
        }
        for status in lifecycle.TERMINAL
    },
}
_HELD = {
    "lease_token": "'token-' || gen_random_uuid()",
    "locked_by": "'executor-1'",
    "locked_at": _NOW,
    "due_at": _LATER,
    "next_attempt_at": "NULL",
}


class World:
    """The tests' view of one database."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._connections: list[RawConnection] = []
        self._eyes = self.raw()
        self._numbers = itertools.count(1)
        self._threads = ThreadPoolExecutor(32)

    def close(self) -> None:
        """Close everything; a statement that still waits ends with an error in its own thread."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for connection in self._connections:
            connection.close()

    def raw(self) -> RawConnection:
        """A new prepared connection, as the executor's threads have."""
        connection = self.db.raw(application_name="test")
        boundary.prepare(connection)
        self._connections.append(connection)
        return connection

    # -- look

    def query(self, sql: str, *arguments: Any) -> list[Row]:
        """The rows of a query; JSON columns are text."""
        with self._eyes.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(sql, arguments)
            return [dict(row) for row in cursor.fetchall()]

    def execute(self, sql: str, *arguments: Any) -> None:
        """Change something behind the store's back."""
        with self._eyes.cursor() as cursor:
            cursor.execute(sql, arguments)

    def run(self, run_id: str) -> Row:
        """The whole row of a run."""
        return self.query("SELECT * FROM runs WHERE id = %s", run_id)[0]

    def steps(self, run_id: str) -> list[Row]:
        """The whole rows of a run's steps, in order."""
        return self.query("SELECT * FROM steps WHERE run_id = %s ORDER BY seq", run_id)

    def audits(self, run_id: str) -> list[str]:
        """What was audited of a run, in order."""
        rows = self.query("SELECT action FROM audit_events WHERE run_id = %s ORDER BY id", run_id)
        return [row["action"] for row in rows]

    def everything(self) -> dict[str, list[Row]]:
        """All rows of runs, steps, audit events and the outbox: to compare before and after."""
        orders = {"runs": "id", "steps": "run_id, seq", "audit_events": "id", "outbox": "id"}
        return {
            table: self.query(f"SELECT * FROM {table} ORDER BY {order}")
            for table, order in orders.items()
        }

    # -- make

    def put(
        self,
        status: str = lifecycle.QUEUED,
        *,
        held: bool = False,
        parent: str | None = None,
        **columns: str,
    ) -> str:
        """A run in ``status``, held by an executor or not; ``columns`` are SQL expressions.

        With a ``parent`` it is nested: the run of that one's step 1, if ``columns`` say no other.
        """
        run_id = new_id("run", after=parent)
        if status == lifecycle.PAUSED:
            columns = {"paused_by": f"'{run_id}'", **columns}
        if parent is not None:
            above = f"FROM runs p WHERE p.id = '{parent}'"
            columns = {
                "parent_run_id": f"'{parent}'",
                "parent_seq": "1",
                "root_run_id": f"(SELECT coalesce(p.root_run_id, p.id) {above})",
                "depth": f"(SELECT p.depth + 1 {above})",
                **columns,
            }
        values = {
            "id": f"'{run_id}'",
            "organization_id": f"'{ORGANIZATION}'",
            "metronome_id": f"'{METRONOME}'",
            "user_id": "'user_a'",
            "version_id": "'ver_a'",
            "trigger_type": "'manual'",
            "input": "'{}'",
            "status": f"'{status}'",
            **_FREE[status],
            **(_HELD if held else {}),
            **columns,
        }
        self.execute(
            f"INSERT INTO runs ({', '.join(values)}) VALUES ({', '.join(values.values())})"
        )
        return run_id

    def put_step(self, run_id: str, seq: int, status: str, **columns: str) -> None:
        """A step of a run; ``columns`` are SQL expressions."""
        ended = status not in lifecycle.OPEN_STEP
        values = {
            "run_id": f"'{run_id}'",
            "seq": str(seq),
            "metronome_id": f"'{METRONOME}'",
            "node_id": f"'n{seq}'",
            "node_type": "'function'",
            "status": f"'{status}'",
            "attempt": "1",
            "started_at": _NOW,
            "completed_at": _NOW if ended else "NULL",
            **columns,
        }
        if status == lifecycle.WAITING_APPROVAL:
            values["organization_id"] = f"(SELECT organization_id FROM runs WHERE id = '{run_id}')"
        self.execute(
            f"INSERT INTO steps ({', '.join(values)}) VALUES ({', '.join(values.values())})"
        )

    def claim(self, executor: str = "executor-1", *, lease: float = LEASE) -> Claimed:
        """Claim the one run that is due."""
        (claimed,) = leases.claim(self._eyes, executor, limit=1, lease=lease)
        return claimed

    def held(self, executor: str = "executor-1", **columns: str) -> Claimed:
        """A new run, claimed."""
        run_id = self.put(lifecycle.QUEUED, held=False, **columns | {"due_at": "'2000-01-01Z'"})
        claimed = self.claim(executor)
        assert claimed.id == run_id
        return claimed

    def in_flight(self, executor: str = "executor-1", **columns: str) -> Claimed:
        """A new run, claimed, with its first node n1 in flight."""
        claimed = self.held(executor, **columns)
        assert self.write(step(claimed, start=1)).answer == "go"
        return claimed

    def expire(self, *run_ids: str) -> None:
        """End the leases (or the sleep) of runs."""
        self.execute("UPDATE runs SET due_at = clock_timestamp() WHERE id = ANY(%s)", list(run_ids))

    # -- act

    def write(self, one: Boundary) -> Verdict:
        """Write one boundary."""
        return boundary.write(self._eyes, [one])[0]

    def request(
        self,
        action: Action,
        run_id: str,
        *,
        metronome: str = METRONOME,
        actor: Actor = ACTOR,
    ) -> Transitioned | None:
        """Take an action as the API does; a retry is one from the start."""
        with self.db.connect() as connection:
            if action in (lifecycle.RETRY, lifecycle.RETRY_IN_DOUBT):
                return retries.retry(connection, actor, metronome, run_id, afresh=True)
            if action is lifecycle.CANCEL:
                return cancels.cancel(connection, actor, metronome, run_id)
            return transitions.request(connection, action, actor, metronome, run_id)

    def done(self, action: Action, run_id: str) -> Transitioned:
        """Take an action on a run that exists."""
        result = self.request(action, run_id)
        assert result is not None
        return result

    def decide(
        self,
        run_id: str,
        decision: Decision = APPROVED,
        *,
        metronome: str = METRONOME,
        actor: Actor = ACTOR,
    ) -> Decided | None:
        """Decide on a step that waits for an approval, as the API does."""
        with self.db.connect() as connection:
            return decisions.decide(connection, actor, metronome, run_id, decision)

    # -- interleave

    def begin(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do ``work`` in a thread."""
        return self._threads.submit(work, *args, **kwargs)

    def wait_for_waiters(self, count: int = 1) -> None:
        """Return once ``count`` sessions of this database wait for a lock."""

        def waiting() -> bool:
            rows = self.query(
                "SELECT count(*) AS n FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(rows[0]["n"] >= count)

        wait_for(waiting, message=f"{count} sessions that wait for a lock")

    @contextmanager
    def locked(self, *run_ids: str) -> Iterator[RawConnection]:
        """Hold the row locks of runs; the connection's transaction is committed at the end."""
        connection = self.db.raw(application_name="test holder")
        try:
            connection.autocommit = False
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT id FROM runs WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE",
                    (list(run_ids),),
                )
            yield connection
            connection.commit()
        finally:
            connection.close()


class Ear:
    """A session that listens to a channel of notifications from now on."""

    def __init__(self, world: World, channel: str) -> None:
        self._world = world
        self._channel = channel
        self._connection = world.raw()
        self._connection.cursor().execute(f"LISTEN {channel}; LISTEN enough")

    def all(self) -> list[str]:
        """What was said since the last call, in order; duplicates of one transaction are one."""
        self._world.execute("NOTIFY enough")  # comes behind everything that was committed before

        def came() -> bool:
            self._connection.poll()
            return any(one.channel == "enough" for one in self._connection.notifies)

        wait_for(came, message="the notifications")
        heard = [one.payload for one in self._connection.notifies if one.channel == self._channel]
        self._connection.notifies.clear()
        return heard


def step(
    claimed: Claimed,
    *,
    end: int | None = None,
    start: int | None = None,
    move: str | None = None,
    sleep: int | None = None,
) -> Boundary:
    """A boundary of a held run that ends, parks and starts the steps of these numbers."""
    return Boundary(
        run_id=claimed.id,
        metronome_id=claimed.metronome_id,
        token=claimed.token,
        ends=[] if end is None else [StepEnd(end, lifecycle.COMPLETED, output='{"n": 1}')],
        parks=[] if sleep is None else [StepPark(sleep, claimed.now.replace(year=2999))],
        starts=[] if start is None else [StepStart(start, f"n{start}", "function", 1)],
        move=None if move is None else make_move(claimed, move),
    )


def bound(claimed: Claimed, **fields: Any) -> Boundary:
    """A boundary of a held run with these fields, which locks the runs above it as the engine does.

    A run that ends touches the one above it, one that starts another the root of its tree.
    """
    move: Move | None = fields.get("move")
    above = set()
    if move is not None and move.action in (lifecycle.COMPLETE.name, lifecycle.FAIL.name):
        above.add(claimed.parent_run_id)
    if fields.get("spawns"):
        above.add(claimed.root_run_id)
    touches = [run_id for run_id in above if run_id is not None]
    return Boundary(claimed.id, claimed.metronome_id, claimed.token, touches=touches, **fields)


def make_move(claimed: Claimed, name: str) -> Move:
    """A move with everything that it may need."""
    return Move(
        name,
        output='{"late": true}' if name == lifecycle.COMPLETE.name else None,
        error="it failed" if name == lifecycle.FAIL.name else None,
        wait=3600.0 if name == lifecycle.BACKOFF.name else None,
        wake_at=claimed.now.replace(year=2999) if name == lifecycle.SLEEP.name else None,
    )


def as_held(row: Row) -> Claimed:
    """What the holder of a run that was put into the database knows of it."""
    return Claimed(
        id=row["id"],
        organization_id=row["organization_id"],
        metronome_id=row["metronome_id"],
        version_id=row["version_id"],
        user_id=row["user_id"],
        trigger_type=row["trigger_type"],
        input=row["input"],
        attempt_count=row["attempt_count"],
        max_attempts=row["max_attempts"],
        deadline_at=row["deadline_at"],
        token=row["lease_token"] or "no-token",
        begun=True,
        lost=False,
        now=row["created_at"],
    )
