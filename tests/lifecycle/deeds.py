"""What can be done to runs, twice over: on the database as the code does it, and in the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

from app.db import Database, RawConnection
from app.domain.lifecycle import (
    APPROVE,
    CANCEL,
    CANCELLED,
    COMPLETE,
    COMPLETED,
    FAIL,
    FAILED,
    PAUSE,
    RESUME,
    RETRY,
    Action,
)
from app.domain.models import Actor, Decision
from app.store import boundary, callbacks, decisions, leases, retries, sweeps, transitions
from app.store.boundary import Boundary, Move, StepEnd
from app.store.callbacks import Place
from app.store.leases import Claimed, NextNode
from tests.lifecycle import requests
from tests.lifecycle.model import Forest
from tests.lifecycle.requests import Answer
from tests.store.world import ACTOR, LEASE, METRONOME

STRANGER = replace(ACTOR, organization_id="org_b")
SECRET = "sha256-of-the-token"


class Deed(Protocol):
    """``ask`` does it on the database; ``expect`` in the model, told what the database said.

    Both answer the same. A claim can only be played in the model when it is known what it took.
    """

    def ask(self, db: Database, raw: RawConnection) -> Any: ...

    def expect(self, forest: Forest, said: Any) -> Any: ...


@dataclass(frozen=True)
class Request:
    """Somebody asks for an action on a run and what is below it."""

    action: Action
    run_id: str
    confirm: bool = False  # of a resume
    afresh: bool = True  # of a retry

    def ask(self, db: Database, raw: RawConnection) -> Answer:
        """As the API does."""
        done = self.done(db, ACTOR, METRONOME)
        assert done is not None
        flying = [f"{done.run.id}/{node}" for node in done.in_flight]
        flying += [f"{run_id}/{node}" for run_id, node in done.nested_in_flight]
        above = done.paused_above[0] if done.paused_above else None
        return Answer(done.moved, done.run.status, tuple(flying), above)

    def done(self, db: Database, actor: Actor, metronome: str) -> Any:
        """Ask as somebody, for a run of some workflow."""
        with db.connect() as connection:
            if self.action is RETRY:
                return retries.retry(connection, actor, metronome, self.run_id, afresh=self.afresh)
            return transitions.request(
                connection, self.action, actor, metronome, self.run_id, confirm=self.confirm
            )

    def expect(self, forest: Forest, said: object) -> Answer:
        """By the table."""
        if self.action is RETRY:
            return requests.retry(forest, self.run_id, afresh=self.afresh)
        if self.action is RESUME:
            return requests.resume(forest, self.run_id, confirm=self.confirm)
        return {CANCEL: requests.cancel, PAUSE: requests.pause}[self.action](forest, self.run_id)


@dataclass(frozen=True)
class Decide:
    """Somebody approves or rejects."""

    action: Action
    run_id: str
    seq: int | None = None

    def ask(self, db: Database, raw: RawConnection) -> str:
        """As the API does."""
        done = self.done(db, ACTOR, METRONOME)
        assert done is not None
        outcome: str = done.outcome
        return outcome

    def done(self, db: Database, actor: Actor, metronome: str) -> Any:
        """Decide as somebody, of a run of some workflow."""
        decision = Decision(self.action is APPROVE, seq=self.seq)
        with db.connect() as connection:
            return decisions.decide(connection, actor, metronome, self.run_id, decision)

    def expect(self, forest: Forest, said: object) -> str:
        """By the table."""
        approved = self.action is APPROVE
        return requests.decide(forest, self.run_id, approved=approved, seq=self.seq)


@dataclass(frozen=True)
class CallBack:
    """A remote side tells how its work has ended."""

    run_id: str
    seq: int

    def ask(self, db: Database, raw: RawConnection) -> str:
        """As the API does."""
        found = self.done(db, METRONOME, SECRET)
        assert found is not None
        outcome: str = found[1]
        return outcome

    def done(self, db: Database, metronome: str, sha256: str) -> Any:
        """Call back with some token, for a run of some workflow."""
        place = Place(metronome, self.run_id, self.seq)
        with db.connect() as connection:
            return callbacks.record(
                connection, place, sha256, result='{"status": "completed"}', late="{}"
            )

    def expect(self, forest: Forest, said: object) -> str:
        """By the table."""
        return requests.call_back(forest, self.run_id, self.seq)


@dataclass(frozen=True)
class Claim:
    """An executor looks for work."""

    limit: int

    def ask(self, db: Database, raw: RawConnection) -> list[Claimed]:
        """As the executor does."""
        return leases.claim(raw, "executor-1", limit=self.limit, lease=LEASE)

    def expect(self, forest: Forest, said: list[Claimed]) -> list[Claimed]:
        """Whatever was taken was due; what somebody else has locked is left for later."""
        lost = {one.id: forest.claim(one.id, one.token) for one in said}
        assert [one.lost for one in said] == [lost[one.id] for one in said]
        return said


@dataclass(frozen=True)
class Disown:
    """Whoever has taken over a run takes its open steps from the executor that was lost."""

    run_id: str
    token: str

    def ask(self, db: Database, raw: RawConnection) -> None:
        """As the executor does."""
        leases.disown(raw, self.run_id, self.token)

    def expect(self, forest: Forest, said: object) -> None:
        """By the table."""
        forest.disown(self.run_id, self.token)


@dataclass(frozen=True)
class Write:
    """An executor is between two nodes."""

    boundary: Boundary

    def ask(self, db: Database, raw: RawConnection) -> str:
        """As the executor does."""
        return boundary.write(raw, [self.boundary])[0].answer

    def expect(self, forest: Forest, said: object) -> str:
        """By the table."""
        return forest.write(self.boundary)


@dataclass(frozen=True)
class LetGo:
    """An executor gives a run back."""

    run_id: str
    token: str
    nexts: tuple[NextNode, ...] = ()
    unfinished: bool = False

    def ask(self, db: Database, raw: RawConnection) -> str | None:
        """As the executor does."""
        return leases.let_go(
            raw,
            self.run_id,
            self.token,
            nexts=self.nexts,
            error=leases.EXECUTOR_STOPPED if self.unfinished else "the run was stopped",
            unfinished=self.unfinished,
        )

    def expect(self, forest: Forest, said: object) -> str | None:
        """By the table."""
        return forest.let_go(self.run_id, self.token, self.nexts, unfinished=self.unfinished)


@dataclass(frozen=True)
class Renew:
    """A heartbeat."""

    run_id: str
    token: str

    def ask(self, db: Database, raw: RawConnection) -> dict[str, str]:
        """As the executor does."""
        return leases.renew(raw, [(self.run_id, self.token)], lease=LEASE)

    def expect(self, forest: Forest, said: object) -> dict[str, str]:
        """By the table."""
        return forest.renew(self.run_id, self.token)


@dataclass(frozen=True)
class Sweep:
    """An executor tidies up behind the dead."""

    def ask(self, db: Database, raw: RawConnection) -> set[str]:
        """As the executor does."""
        return set(sweeps.sweep(raw).runs)

    def expect(self, forest: Forest, said: set[str]) -> set[str]:
        """Whatever was swept was dead; what somebody else has locked is left for later."""
        return forest.sweep(said)


@dataclass(frozen=True)
class CloseAll:
    """An executor closes all that is open in a run that it can't walk."""

    run_id: str
    token: str

    def ask(self, db: Database, raw: RawConnection) -> None:
        """As the executor does."""
        leases.close_all(raw, self.run_id, self.token, "internal error")

    def expect(self, forest: Forest, said: object) -> None:
        """By the table."""
        forest.close_all(self.run_id, self.token)


# -- what an executor writes


def between(held: Claimed, root: str, **fields: Any) -> Write:
    """A boundary of a held run, which locks other runs of its tree as the engine does."""
    touches: list[str] = []
    move: Move | None = fields.get("move")
    if held.parent_run_id and move is not None and move.action in (COMPLETE.name, FAIL.name):
        touches.append(held.parent_run_id)
    if fields.get("spawns") and root != held.id and root not in touches:
        touches.append(root)
    one = Boundary(held.id, held.metronome_id, held.token, touches=touches, **fields)
    return Write(one)


def ended(seq: int, status: str = COMPLETED, error: str | None = None, *, tell: bool) -> StepEnd:
    """How a step ended; ``tell`` where its connector is to know."""
    return StepEnd(seq, status, output="{}", error=error, tell=tell)


ENDS = (COMPLETED, FAILED, CANCELLED)
