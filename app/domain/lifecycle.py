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
CLAIMABLE: Final = (QUEUED, RUNNING)  # an executor may take such a run once it is due

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
PAUSE: Final = Action("pause", (QUEUED, RUNNING), PAUSED, "run.paused")
RESUME: Final = Action("resume", (PAUSED,), QUEUED, "run.resumed")
AWAIT_APPROVAL: Final = Action("await_approval", (RUNNING,), WAITING_APPROVAL)
APPROVE: Final = Action("approve", (WAITING_APPROVAL,), QUEUED, "run.approved")
REJECT: Final = Action("reject", (WAITING_APPROVAL,), QUEUED, "run.rejected")
COMPLETE: Final = Action("complete", (RUNNING,), COMPLETED)
FAIL: Final = Action("fail", (RUNNING,), FAILED)
BACKOFF: Final = Action("backoff", (RUNNING,), QUEUED)
DOUBT: Final = Action("doubt", (RUNNING,), PAUSED)
RETRY: Final = Action("retry", (FAILED, CANCELLED), QUEUED, "run.retried")

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
