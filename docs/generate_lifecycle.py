"""Write docs/lifecycle.rst from the table in app/domain/lifecycle.py.

    python docs/generate_lifecycle.py

A test compares the page with what this makes, so the page can't tell another story than the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from app.domain import lifecycle
from app.domain.lifecycle import ACTIONS, CLAIMABLE, RUN_STATUSES, SLEEP, TERMINAL

PAGE = Path(__file__).with_name("lifecycle.rst")
INDENT = "    "

_INTRODUCTION = """\
The life of a run
=================

.. Made by ``docs/generate_lifecycle.py`` from ``app/domain/lifecycle.py``: don't change it here.

A run has one status at a time, and only the actions of the table below change it. Each is one
transaction that locks the run's row, looks whether the status allows the action, and writes the new
status together with all that belongs to it. An action that the status does not allow changes
nothing at all.
"""

_MEANINGS = {
    lifecycle.QUEUED: "It waits for an executor: new, resumed, approved, to be tried again, or "
    "backing off until ``nextAttemptAt``.",
    lifecycle.RUNNING: "An executor holds it (``lockedBy``), or its nodes sleep until "
    "``nextAttemptAt``, or wait for a nested run or a remote side, and nobody has to hold it.",
    lifecycle.WAITING_APPROVAL: "It waits for a person to approve or to reject. No executor holds "
    "it.",
    lifecycle.PAUSED: "No node starts. One that was in flight may still be ending while "
    "``lockedBy`` is set. With ``inDoubt``, a node may have run that does harm when it runs again: "
    "a person has to look.",
    lifecycle.COMPLETED: "Final: it reached its end.",
    lifecycle.FAILED: "Final: a node failed and no attempt is left, or its ``timeoutMs`` has "
    "passed.",
    lifecycle.CANCELLED: "Final: somebody cancelled it, or a run above it. A node that was in "
    "flight may still be ending while ``lockedBy`` is set.",
}

_WHO = {
    "claim": "an executor, when the run is due",
    "cancel": "a person, at any time before the end; the executor, where a run no longer waits for "
    "a nested one",
    "pause": "a person",
    "resume": "a person; in doubt, only with a confirmation",
    "await_approval": "the executor, when a person is asked and nothing else can go on",
    "approve": "a person",
    "reject": "a person",
    "complete": "the executor, when no node is left",
    "fail": "the executor, when the run can't go on",
    "backoff": "the executor, when an attempt has failed and another one is left",
    "doubt": "the executor, when nobody knows whether a node has run",
    "retry": "a person; from the start, or behind the finished steps",
    "retry_in_doubt": "a person; a run that is paused for another reason can't be retried",
}

_PROMISES = (
    (
        "Nothing starts after the answer",
        "Once a cancel or a pause has been answered, no node of that run starts. A cancel and the "
        "start of a node lock the same row, so one comes before the other. A node whose start came "
        "first is in flight: the answer names it (``Cancel-In-Flight``). The same is true of all "
        "runs below that one.",
    ),
    (
        "What is final stays",
        f"Nothing overwrites {', '.join(TERMINAL[:-1])} or {TERMINAL[-1]}, but a retry that "
        "somebody asks for.",
    ),
    (
        "No executor is needed",
        "A run that nobody holds is cancelled in the request itself: queued, paused, backing off, "
        "asleep, or waiting for an approval, a nested run or a remote side.",
    ),
    (
        "Twice is once",
        "A second cancel answers 200 and changes nothing, not even ``updatedAt``. There is one "
        "audit event for each change.",
    ),
    (
        "The trace tells what happened",
        "Steps that have ended are never changed. A node in flight records how it really ended, "
        "though its run was cancelled. Nodes that were next get a cancelled step without "
        "``startedAt``. When ``lockedBy`` is empty, no step of a run that has ended is open.",
    ),
    (
        "A crash loses nothing",
        "While an executor holds a run it renews a lease. When it dies, another one takes the run "
        "over behind the last finished step: at once, or where nothing tells of the death, as soon "
        "as the lease has ended. What the dead one still sends is refused. A run that was stopped "
        "meanwhile is tidied up, and not resumed.",
    ),
    (
        "Tenants don't see each other",
        "The run of another organization answers exactly as one that does not exist.",
    ),
)


def page() -> str:
    """The whole page as reStructuredText."""
    parts = [
        _INTRODUCTION,
        _section("Statuses", _table(("status", "what it means"), _statuses())),
        _section("Actions", _table(("action", "from", "to", "audit event", "who"), _actions())),
        _section("From status to status", _graph()),
        _section("When an executor may take a run", _DUE),
        _section("Runs below a run", _TREES),
        _section("A decision on an approval", _DECISIONS),
        _section("In doubt", _DOUBT),
        _section("What is promised", _promises()),
    ]
    return "\n".join(parts)


_DUE = f"""\
One column decides: ``due_at``. For a new run it is the moment of its creation, for a backoff or a
sleep the moment to wake, and for a run that is held the end of its lease. An executor claims what
is {", ".join(CLAIMABLE[:-1])} or {CLAIMABLE[-1]}, and due, the longest due first. So the same
statement starts new runs, wakes sleepers and takes over the runs of a dead executor.

``{SLEEP.name}`` is the one move that changes no status: the run stays {SLEEP.target}, and nobody
holds it until it is due. So does a run that waits for something that has no time: for a nested run,
a remote side or a person. Its ``due_at`` is infinity. What it waits for makes it due when it comes,
in the same transaction. A run that is held at that moment, or paused, looks at it when it is let
go, or resumed; one that backs off keeps its time.
"""


_TREES = """\
A node of the kind ``metronome`` starts a nested run, and waits for its end. A cancel, pause or
resume is of a whole tree, in one transaction: it locks the run at the top, then all runs below the
one that is asked for, and changes each whose status allows it, with an audit event of its own. So a
nested run that is started at the same moment is stopped too, or never starts.

- Resume takes back what that pause has paused (and with ``confirmInDoubtReplay`` what is in doubt),
  not what somebody had paused further down. Below a paused run nothing is resumed alone.
- A cancel of a nested run alone wakes the run above, whose node fails or takes its ``error`` edge.
- Retry is for the run at the top. What still goes on below it is cancelled.
"""

_DECISIONS = f"""\
{lifecycle.APPROVE.name} and {lifecycle.REJECT.name} are of a step. The decision is kept with the
step, and whoever takes the run next ends the step with it. So a step may also be decided while its
run is {lifecycle.QUEUED}, {lifecycle.RUNNING} or {lifecycle.PAUSED}, which stays so then.
"""


_DOUBT = f"""\
A node whose executor died, or left it behind at a shutdown, may have run or not. Where running it
again does no harm it is run again. Where it may, ``{lifecycle.DOUBT.name}`` pauses the run in the
transaction that closes the node's step, and the run is ``inDoubt``: a run that is paused by then
stays so, and is in doubt as well. Then a resume needs ``confirmInDoubtReplay``, also one of a run
above; a retry or a cancel settles it too. Nothing else makes such a run go on.
"""


def _statuses() -> list[tuple[str, ...]]:
    return [(f"``{status}``", _MEANINGS[status]) for status in RUN_STATUSES]


def _actions() -> list[tuple[str, ...]]:
    return [
        (
            f"**{action.name}**",
            ", ".join(action.sources),
            action.target,
            f"``{action.audit}``" if action.audit else "none",
            _WHO[action.name],
        )
        for action in ACTIONS
    ]


def _graph() -> str:
    """For each status the actions that lead out of it, or leave it as it is, as plain text."""
    width = max(map(len, RUN_STATUSES))
    lines = [".. code-block:: text", ""]
    for status in RUN_STATUSES:
        ways = [action for action in (*ACTIONS, SLEEP) if status in action.sources]
        for number, action in enumerate(ways):
            name = status if number == 0 else ""
            lines.append(f"    {name:{width}}  --{action.name}-->  {action.target}")
        if not ways:
            lines.append(f"    {status:{width}}  (nothing leads out of it)")
    return "\n".join([*lines, ""])


def _promises() -> str:
    return "\n".join(
        f"{title}\n{fill(text, 96, initial_indent=INDENT, subsequent_indent=INDENT)}\n"
        for title, text in _PROMISES
    )


def _section(title: str, body: str) -> str:
    return f"{title}\n{'-' * len(title)}\n\n{body}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *rows):
        for place, cell in enumerate(row):
            lines.append(f"   {'*' if place == 0 else ' '} - {cell}")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page())
