"""The life of a run: the only table of statuses, actions and transitions.

Every status write in the project is made from these rows. ``store/runs.py`` (one run, asked for by
a person), ``store/boundary.py`` (the executor's moves) and ``store/leases.py`` (claim) build their
SQL from them, the CHECK constraints repeat the statuses, and docs/lifecycle.rst is generated from
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

QUEUED: Final = "queued"
RUNNING: Final = "running"
WAITING_APPROVAL: Final = "waiting_approval"
PAUSED: Final = "paused"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"

RUN_STATUSES: Final = (QUEUED, RUNNING, WAITING_APPROVAL, PAUSED, COMPLETED, FAILED, CANCELLED)
TERMINAL: Final = (COMPLETED, FAILED, CANCELLED)  # nothing but an explicit retry leaves these
# An executor may take such a run once it is due. One that waits for an approval is due where a
# deadline has come, or something else in it goes on.
CLAIMABLE: Final = (QUEUED, RUNNING, WAITING_APPROVAL)

SKIPPED: Final = "skipped"
STEP_STATUSES: Final = (*RUN_STATUSES, SKIPPED)
OPEN_STEP: Final = (QUEUED, RUNNING, WAITING_APPROVAL, PAUSED)  # has not ended yet


@dataclass(frozen=True, slots=True)
class Action:
    """One row of the table: what may be done, from where, to where, and what the audit calls it.

    ``audit`` is None for an action that no person asks for: the trace tells of those.
    """

    name: str
    sources: tuple[str, ...]
    target: str
    audit: str | None = None


CLAIM: Final = Action("claim", CLAIMABLE, RUNNING)
CANCEL: Final = Action(
    "cancel", (QUEUED, RUNNING, WAITING_APPROVAL, PAUSED), CANCELLED, "run.cancelled"
)
# A run that waits for an approval is paused like any other: the step stays open, a decision is
# kept, and after a resume the executor goes on from there.
PAUSE: Final = Action("pause", (QUEUED, RUNNING, WAITING_APPROVAL), PAUSED, "run.paused")
RESUME: Final = Action("resume", (PAUSED,), QUEUED, "run.resumed")
AWAIT_APPROVAL: Final = Action("await_approval", (RUNNING,), WAITING_APPROVAL)
APPROVE: Final = Action("approve", (WAITING_APPROVAL,), QUEUED, "run.approved")
REJECT: Final = Action("reject", (WAITING_APPROVAL,), QUEUED, "run.rejected")
COMPLETE: Final = Action("complete", (RUNNING,), COMPLETED)
FAIL: Final = Action("fail", (RUNNING,), FAILED)
BACKOFF: Final = Action("backoff", (RUNNING,), QUEUED)
# Also a run that was paused meanwhile is in doubt: a resume must not run the node again unasked.
DOUBT: Final = Action("doubt", (QUEUED, RUNNING, PAUSED), PAUSED)
RETRY: Final = Action("retry", (FAILED, CANCELLED), QUEUED, "run.retried")
# A paused run can be retried only where it is in doubt: see the column in_doubt.
RETRY_IN_DOUBT: Final = Action("retry_in_doubt", (PAUSED,), QUEUED, "run.retried")

ACTIONS: Final = (
    CLAIM,
    CANCEL,
    PAUSE,
    RESUME,
    AWAIT_APPROVAL,
    APPROVE,
    REJECT,
    COMPLETE,
    FAIL,
    BACKOFF,
    DOUBT,
    RETRY,
    RETRY_IN_DOUBT,
)

# The executor's moves at a node boundary. SLEEP is no change of status: the run stays running, but
# nobody holds it until it is due again.
SLEEP: Final = Action("sleep", (RUNNING,), RUNNING)
MOVES: Final = (COMPLETE, FAIL, BACKOFF, AWAIT_APPROVAL, DOUBT, SLEEP)


def allowed(action: Action, status: str) -> bool:
    """Whether ``action`` may be taken by a run whose status is ``status``."""
    return status in action.sources


def sql_list(statuses: tuple[str, ...]) -> str:
    """``statuses`` as the inside of an SQL IN list: ``'queued', 'running'``."""
    return ", ".join(f"'{status}'" for status in statuses)
