"""The records that cross the layers, as plain frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: the user and the organization that an API key stands for."""

    key_id: str
    user_id: str
    organization_id: str


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as it is listed; the secret itself is never stored."""

    id: str
    name: str
    prefix: str  # the first characters of the secret, to recognise it by
    user_id: str
    organization_id: str
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
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one version of a workflow."""

    id: str
    organization_id: str
    metronome_id: str
    user_id: str
    version_id: str
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
    locked_by: str | None
    locked_at: datetime | None
    queued_at: datetime
    started_at: datetime | None
    next_attempt_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a run's trace: one attempt at one node."""

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
    wake_at: datetime | None  # a sleeping step: when it ends
    started_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime


CancelOutcome = Literal["cancelled", "already_cancelled", "already_completed", "already_failed"]


@dataclass(frozen=True, slots=True)
class Transitioned:
    """What asking for a transition came to.

    ``run`` is the run as it is now; ``moved`` says whether this request changed it; ``in_flight``
    holds the ids of the nodes that had started and not ended when it did.
    """

    run: Run
    moved: bool
    in_flight: tuple[str, ...]
