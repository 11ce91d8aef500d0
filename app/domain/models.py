"""The records that cross the layers, as plain frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: the user and the organization that an API key stands for, and its role there.

    ``remembered`` says that the key was valid some time ago, and nobody has looked since: only what
    proves it in its own transaction may be done for such an actor (``store/proof.py``).
    """

    key_id: str
    user_id: str
    organization_id: str
    role: str = "admin"
    remembered: bool = False


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as it is listed; the secret itself is never stored."""

    id: str
    name: str
    prefix: str  # the first characters of the secret, to recognise it by
    user_id: str
    organization_id: str
    role: str
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Metronome:
    """A workflow and its draft definition."""

    id: str
    organization_id: str
    user_id: str
    name: str
    description: str | None
    status: str
    definition: dict[str, Any]
    trigger_summary: str | None
    published_version_id: str | None
    published_version_number: int | None
    revision: int  # counts its changes
    max_concurrent_runs: int | None  # of a group; None where any number may be at work
    on_limit: str  # queue, reject or cancel_oldest
    concurrency_key: str | None  # an expression: the group of a run
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class OwnerCandidate:
    """A user who could own a workflow."""

    user_id: str
    role: str  # of the user's keys, the one that may do most
    is_owner: bool


@dataclass(frozen=True, slots=True)
class Version:
    """A definition that can be run, and published."""

    id: str
    organization_id: str
    metronome_id: str
    version: int | None  # None for what was only run, and never saved
    description: str | None
    status: str
    definition: dict[str, Any]
    revision: int  # counts the changes of its definition
    node_count: int
    edge_count: int
    trigger_summary: str | None
    created_at: datetime
    updated_at: datetime
    published_at: datetime | None


@dataclass(frozen=True, slots=True)
class Deployment:
    """One publication, or the end of one; ``id`` is that of the audit event."""

    id: str
    metronome_id: str
    version_id: str
    version: int
    version_revision: int | None  # None in what was written before it was told
    action: str  # published or unpublished
    description: str | None
    actor_user_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one version of a workflow."""

    id: str
    organization_id: str
    metronome_id: str
    user_id: str
    version_id: str
    version_revision: int  # which of the version's definitions it runs
    trigger_type: str
    trigger_event_id: str | None
    idempotency_key: str | None
    status: str
    input: dict[str, Any]
    output: dict[str, Any] | None
    error: str | None
    attempt_count: int
    max_attempts: int
    timeout_ms: int | None
    attached_project_id: str | None
    attached_ticket_id: str | None
    concurrency_key: str | None  # its group, where its workflow limited runs when it was created
    admitted: bool  # whether it has a place in that group; without one it is not begun
    parent_run_id: str | None  # a nested run: the run and the step that started it
    parent_seq: int | None
    root_run_id: str | None  # the run at the top; None for a run that is not nested
    in_doubt: bool  # paused, because a node that is not safe to replay may have run
    locked_by: str | None
    locked_at: datetime | None
    queued_at: datetime
    started_at: datetime | None
    next_attempt_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Iteration:
    """Where in a loop a step is."""

    loop: str  # the loop's node id
    iteration: int  # from 0


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a run's trace: one attempt at one node.

    What has a default is no column of its own.
    """

    run_id: str
    seq: int  # the place in the run's trace, from 1
    metronome_id: str
    node_id: str
    node_type: str
    status: str
    attempt: int  # of this node, from 1
    input: dict[str, Any] | None
    output: dict[str, Any] | None
    metadata: dict[str, Any] | None
    error: str | None
    parent_seq: int | None  # inside of a loop: the seq of the loop's own step
    iteration: int | None
    connector: str | None  # which the node is dispatched to
    wake_at: datetime | None  # a parked step: when it goes on at the latest
    started_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    parked: bool = False  # open, and nobody is in flight in it: it waits
    loops: tuple[Iteration, ...] = ()  # which iterations it is in, outermost first


@dataclass(frozen=True, slots=True)
class OpenStep:
    """A step that has not ended: a node in flight, or one that waits."""

    seq: int
    node_id: str
    node_type: str
    status: str
    attempt: int
    connector: str | None
    started_at: datetime | None
    wake_at: datetime | None
    parked: bool
    child_run_id: str | None


@dataclass(frozen=True, slots=True)
class RunView:
    """A run, and what goes on in it just now."""

    run: Run
    open_steps: tuple[OpenStep, ...]
    child_count: int  # runs that it started


Ended = Literal["already_cancelled", "already_completed", "already_failed"]
CancelOutcome = Literal["cancelled"] | Ended
PauseOutcome = Literal["paused", "already_paused"] | Ended
ResumeOutcome = Literal["resumed", "not_paused"]


@dataclass(frozen=True, slots=True)
class Transitioned:
    """What asking for a transition came to.

    ``run`` is the run as it is now; ``moved`` says whether this request changed it; ``in_flight``
    holds the ids of the nodes that had started and not ended when it did, ``nested_in_flight`` the
    runs and nodes of those in the runs below it. ``paused_above`` is the run above that keeps this
    one from being resumed, and its workflow. ``doubtful`` holds the ids of the nodes that nobody
    knows of whether they have run. In ``groups`` (workflow, concurrency key) somebody may have left
    a place, or want one.
    """

    run: Run
    moved: bool
    in_flight: tuple[str, ...]
    nested_in_flight: tuple[tuple[str, str], ...] = ()
    paused_above: tuple[str, str] | None = None
    doubtful: tuple[str, ...] = ()
    groups: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody decides of a step that waits for an approval.

    ``seq`` and ``node_id`` say which step; without them it is the one that has waited longest.
    """

    approved: bool
    comment: str | None = None
    seq: int | None = None
    node_id: str | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """What a decision came to; ``run`` is the run as it is now.

    ``outcome`` is ``decided``, or why nothing was: no such step waits, somebody was faster, or its
    deadline has passed. ``seq`` and ``node_id`` are those of the step that was looked at.
    """

    run: Run
    outcome: Literal["decided", "not_waiting", "already_decided", "expired"]
    seq: int | None
    node_id: str | None


@dataclass(frozen=True, slots=True)
class Approval:
    """A step that waits for a person to decide."""

    run_id: str
    metronome_id: str
    seq: int
    node_id: str
    run_status: str
    title: str | None
    message: str | None
    deadline: datetime | None
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted: ``limit`` things at the most, behind ``offset`` others.

    ``after`` is the cursor that the page before has answered: it begins behind that thing.
    """

    limit: int
    offset: int = 0
    after: str | None = None


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A delivery that is to start a run, and to be recorded with it; ``payload`` is JSON text.

    A ``sample`` is one with which somebody tries a trigger out: the event itself may still come.
    """

    id: str
    trigger_type: str
    source_event_id: str | None
    summary: str | None
    payload: str
    sample: bool = False


@dataclass(frozen=True, slots=True)
class TriggerEvent:
    """One delivery for a workflow, and what it came to."""

    id: str
    organization_id: str
    metronome_id: str | None  # None where no workflow listens for such events
    user_id: str | None  # the workflow's owner
    run_id: str | None
    trigger_type: str
    status: str  # matched, ignored, failed or unauthorized
    source_event_id: str | None
    summary: str | None
    reason: str | None  # why it was not matched
    payload: dict[str, Any]
    created_at: datetime
    passing: bool  # ignored for a reason that may have gone when it is delivered again


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Who changed what."""

    id: str
    organization_id: str
    metronome_id: str | None  # None for what concerns the whole organization
    user_id: str  # the owner of what was changed
    actor_user_id: str
    actor_key_id: str
    run_id: str | None
    version_id: str | None
    action: str
    payload: dict[str, Any] | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run and all that belongs to it, in the order in which it came."""

    view: RunView
    event: TriggerEvent | None  # what started it
    steps: tuple[Step, ...]
    audit_events: tuple[AuditEvent, ...]
    more_steps: bool  # there are more than these
    more_audit_events: bool
