"""What people ask of a run: cancel, pause, resume and retry it."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from app.db import Database
from app.domain.errors import Conflict
from app.domain.lifecycle import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PAUSE,
    PAUSED,
    RESUME,
    TERMINAL,
)
from app.domain.models import (
    Actor,
    CancelOutcome,
    Ended,
    PauseOutcome,
    ResumeOutcome,
    Run,
    Transitioned,
)
from app.services.concurrency import Free
from app.services.runs import not_found
from app.store import cancels, retries, transitions

_ENDED: Mapping[str, Ended] = {
    COMPLETED: "already_completed",
    FAILED: "already_failed",
    CANCELLED: "already_cancelled",
}


def cancel(
    db: Database, actor: Actor, metronome_id: str, run_id: str, *, free: Free
) -> Transitioned:
    """Cancel a run and all below it; one that has ended is answered as it is.

    Raises NotFound, or KeyUnproven where ``actor`` is only remembered.

    ``free`` is told of the groups in which they have left places, and must not block: that takes
    the lock on a workflow, which a cancel never waits for.
    """
    # Sent once more where the connection was lost meanwhile: a second one changes nothing.
    done = db.read(lambda connection: cancels.cancel(connection, actor, metronome_id, run_id))
    if done is None:
        raise not_found()
    free(done.groups, None)
    return done


def cancel_outcome(done: Transitioned) -> CancelOutcome:
    """What a cancel came to, in a word."""
    return "cancelled" if done.moved else _ENDED[done.run.status]


def pause(db: Database, actor: Actor, metronome_id: str, run_id: str) -> Transitioned:
    """Pause a run and all below it; one that has ended is answered as it is. Raises NotFound.

    One that is paused since a run above it was is held on its own from now on.
    """
    done = db.read(
        lambda connection: transitions.request(connection, PAUSE, actor, metronome_id, run_id)
    )
    if done is None:
        raise not_found()
    return done


def pause_outcome(done: Transitioned) -> PauseOutcome:
    """What a pause came to, in a word."""
    if done.moved:
        return "paused"
    return "already_paused" if done.run.status == PAUSED else _ENDED[done.run.status]


def resume(
    db: Database,
    actor: Actor,
    metronome_id: str,
    run_id: str,
    *,
    free: Free,
    confirm: bool = False,
) -> Transitioned:
    """Let a paused run go on, with all that its pause has paused; one that is not paused is
    answered as it is.

    ``confirm`` runs nodes again that may have run. ``free`` is told of the groups in which runs
    want places now, as with ``cancel``. Raises NotFound, or Conflict where the run has
    ended (run_ended), is in doubt and that is not confirmed (in_doubt), or is below a run that is
    paused (paused_by_parent).
    """

    def ask(connection: Connection) -> Transitioned | None:
        return transitions.request(connection, RESUME, actor, metronome_id, run_id, confirm=confirm)

    with db.connect() as connection:
        done = ask(connection)
    if done is None:
        raise not_found()
    if not done.moved:
        _check_resumable(done)
    free(done.groups, actor)
    return done


def resume_outcome(done: Transitioned) -> ResumeOutcome:
    """What a resume came to, in a word."""
    return "resumed" if done.moved else "not_paused"


def _check_resumable(done: Transitioned) -> None:
    run = done.run
    if run.status in TERMINAL:
        raise Conflict(
            f"the run is {run.status}, which is final; only retry begins it anew",
            code="run_ended",
            details={"status": run.status},
        )
    if run.status != PAUSED:
        return
    if done.paused_above is not None:
        above, metronome_id = done.paused_above
        raise Conflict(
            f"the run is below {above}, which is paused: resume that one",
            code="paused_by_parent",
            details={"runId": above, "metronomeId": metronome_id},
        )
    raise Conflict(
        f"the run is {run.error or 'in doubt'}",
        code="in_doubt",
        details={"status": run.status, "nodeIds": list(done.doubtful)},
    )


def retry(
    db: Database, actor: Actor, metronome_id: str, run_id: str, *, afresh: bool, free: Free
) -> Run:
    """Queue a run once more that has failed, was cancelled, or is in doubt.

    ``afresh`` from the start, else behind its finished steps. ``free`` is told of the groups in
    which it wants a place, or what was below it has left one, as with ``cancel``. Raises NotFound,
    or Conflict where the run is nested (nested_run) or in another state (not_retryable).
    """
    with db.connect() as connection:
        done = retries.retry(connection, actor, metronome_id, run_id, afresh=afresh)
    if done is None:
        raise not_found()
    run = done.run
    if done.moved:
        free(done.groups, actor)
        return run
    if run.parent_run_id is not None:
        above = run.root_run_id
        raise Conflict(
            f"the run is nested: retry {above}, the run at the top",
            code="nested_run",
            details={"status": run.status, "rootRunId": above},
        )
    raise Conflict(
        f"the run is {run.status}; only runs that have failed, were cancelled or are in doubt can"
        " be retried",
        code="not_retryable",
        details={"status": run.status},
    )
