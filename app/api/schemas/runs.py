"""Runs and their steps in requests and answers."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from app.api import paging
from app.api.dump import WAITS
from app.api.schemas.base import (
    CREATED_AFTER,
    CREATED_BEFORE,
    Choice,
    Flag,
    Input,
    JsonObject,
    ListAnswer,
    Moment,
    Named,
    PageQuery,
    Query,
    QueryNumber,
    Statuses,
    Text,
    id_cursor,
    moment,
    number_cursor,
)
from app.domain.lifecycle import RUN_STATUSES, STEP_STATUSES
from app.services.runs import MAX_STEPS
from app.services.starts import RunRequest

MAX_TIMEOUT_MS = 30 * 24 * 3600 * 1000
MAX_ATTEMPTS = 100


def _reference(told: str) -> Text:
    return Text(1, 255, allow_none=True, metadata={"description": told})


class RunBody(Input):
    """What is to be run."""

    input = JsonObject(metadata={"description": "What `trigger.input` is in the workflow."})
    inputs = JsonObject(metadata={"description": "Another name for `input`."})
    definition = JsonObject(
        metadata={"description": "Run this, whatever is published; it is kept with the run."}
    )
    version_id = Text(
        1,
        100,
        allow_none=True,
        metadata={"description": "Run this version; else the published one."},
    )
    trigger_type = Text(1, 64, pattern="[A-Za-z0-9][A-Za-z0-9_.:-]*", load_default="manual")
    idempotency_key = Text(
        1,
        255,
        allow_none=True,
        metadata={"description": "A second request with this key answers the run of the first."},
    )
    max_attempts = fields.Integer(
        strict=True,
        validate=validate.Range(1, MAX_ATTEMPTS),
        load_default=1,
        metadata={"description": "How often the run is tried before it is failed."},
    )
    timeout_ms = fields.Integer(
        strict=True,
        allow_none=True,
        validate=validate.Range(1, MAX_TIMEOUT_MS),
        metadata={"description": "Milliseconds from the first start on, sleeps included."},
    )
    attached_project_id = _reference("Any text of yours, to list runs by.")
    attached_ticket_id = _reference("Any text of yours, to list runs by.")
    queue_when_capacity_unavailable = Flag(
        metadata={
            "description": "Where the workflow's limit on concurrent runs would reject the run, let"
            " it wait for a place instead."
        }
    )
    pinned_agent_versions = fields.Dict(
        keys=Text(1, 255),
        values=Text(1, 255),
        metadata={"description": "Accepted for compatibility, without effect."},
    )

    @ma.validates_schema
    def _one_each(self, data: dict[str, Any], **_: Any) -> None:
        for one, other in (("input", "inputs"), ("definition", "version_id")):
            if data.get(one) is not None and data.get(other) is not None:
                told = {"version_id": "versionId"}.get(other, other)
                raise ma.ValidationError(f"give either {one} or {told}, not both", told)

    @ma.post_load
    def _as_request(self, data: dict[str, Any], **_: Any) -> RunRequest:
        data.pop("pinned_agent_versions", None)
        data["waits"] = bool(data.pop("queue_when_capacity_unavailable", False))
        if "inputs" in data:
            data["input"] = data.pop("inputs")
            data["input_field"] = "inputs"
        return RunRequest(**data)


class RunChanges(Input):
    """What a run is attached to; null detaches it."""

    attached_project_id = _reference("Any text of yours, to list runs by.")
    attached_ticket_id = _reference("Any text of yours, to list runs by.")


class RunsQuery(PageQuery):
    """Which runs to list."""

    cursor = id_cursor("run")
    status = Statuses(RUN_STATUSES)
    q = Text(
        0,
        200,
        metadata={
            "description": "A text that occurs in the id, error, idempotencyKey, triggerType or"
            " the attached ids of one of the newest 10,000 runs; or a whole id or idempotencyKey."
        },
    )
    parent_run_id = Text(1, 100, metadata={"description": "The run that started it."})
    project_id = Text(1, 255, metadata={"description": "Its attachedProjectId."})
    ticket_id = Text(1, 255, metadata={"description": "Its attachedTicketId."})
    created_after = Moment(CREATED_AFTER)
    created_before = Moment(CREATED_BEFORE)


class ChildrenQuery(PageQuery):
    """Which of the runs that a run started to list."""

    cursor = id_cursor("run")
    status = Statuses(RUN_STATUSES)
    created_after = Moment(CREATED_AFTER)
    created_before = Moment(CREATED_BEFORE)


class StepsQuery(Query):
    """Which part of a trace is wanted."""

    limit = QueryNumber(1, MAX_STEPS, MAX_STEPS, "How many, at the most.")
    offset = QueryNumber(0, paging.MAX_OFFSET, 0, "How many to pass over.")
    cursor = number_cursor()


class RunQuery(Query):
    """How much of a run is wanted."""

    view = Choice(
        ("full", "compact"),
        load_default="full",
        metadata={"description": "`compact` leaves out input and output."},
    )


def _count(told: str, *, nullable: bool = False) -> fields.Integer:
    return fields.Integer(required=True, allow_none=nullable, metadata={"description": told})


class InFlightSchema(Named):
    """A node that an executor is at."""

    step_id = fields.String(required=True)
    node_id = fields.String(required=True)
    attempt = _count("Of this node, from 1.")
    started_at = moment("When it started.")


class WaitingSchema(Named):
    """A node that waits, without anybody at it."""

    step_id = fields.String(required=True)
    node_id = fields.String(required=True)
    type = fields.String(
        required=True,
        validate=validate.OneOf(WAITS),
        metadata={"description": "What it waits for; `loop`: for the nodes inside of it."},
    )
    until = moment("When it goes on at the latest; null where only news ends it.")
    child_run_id = fields.String(
        required=True, allow_none=True, metadata={"description": "Of a `nested_run`."}
    )


class RunSchema(Named):
    """RUN."""

    id = fields.String(required=True)
    metronome_id = fields.String(required=True)
    user_id = fields.String(required=True, metadata={"description": "Its owner."})
    trigger_type = fields.String(required=True)
    version_id = fields.String(required=True, metadata={"description": "What runs."})
    version_revision = fields.Integer(
        required=True,
        metadata={"description": "Which of that version's definitions; a run keeps it to its end."},
    )
    trigger_event_id = fields.String(required=True, allow_none=True)
    idempotency_key = fields.String(required=True, allow_none=True)
    status = fields.String(required=True, validate=validate.OneOf(RUN_STATUSES))
    input = fields.Dict()
    output = fields.Dict(allow_none=True, metadata={"description": "Once it has completed."})
    error = fields.String(required=True, allow_none=True)
    started_at = moment("When an executor first took it.")
    queued_at = moment("When it was queued.", nullable=False)
    next_attempt_at = moment("When it goes on: it sleeps, or backs off after a failed attempt.")
    locked_at = moment("When the executor that holds it took it.")
    completed_at = moment("When it ended.")
    created_at = moment("When it was created.", nullable=False)
    updated_at = moment("When it last changed.", nullable=False)
    locked_by = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The executor that holds it; also while a cancelled node drains."},
    )
    attempt_count = _count("Attempts that have begun.")
    max_attempts = _count("Attempts that it has.")
    timeout_ms = _count("Milliseconds that it has.", nullable=True)
    attached_project_id = fields.String(required=True, allow_none=True)
    attached_ticket_id = fields.String(required=True, allow_none=True)
    concurrency_key = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "Its group, where its workflow limited concurrent runs when it was"
            " created; empty where all runs are one group."
        },
    )
    admitted = fields.Boolean(
        required=True,
        metadata={
            "description": "False while it waits for a place in its group: no executor takes it."
        },
    )
    parent_run_id = fields.String(
        required=True, allow_none=True, metadata={"description": "The run that started this one."}
    )
    parent_step_id = fields.String(
        required=True, allow_none=True, metadata={"description": "The step of it that waits."}
    )
    root_run_id = fields.String(
        required=True, allow_none=True, metadata={"description": "The run at the top of them all."}
    )
    in_doubt = fields.Boolean(
        required=True,
        metadata={
            "description": "Paused, since a node may have run that does harm when it runs again."
        },
    )
    in_flight = fields.List(
        fields.Nested(InFlightSchema),
        metadata={"description": "The nodes that an executor is at. Only in the answer to GET."},
    )
    waiting_for = fields.List(
        fields.Nested(WaitingSchema),
        metadata={"description": "The nodes that wait. Only in the answer to GET."},
    )
    child_count = fields.Integer(
        metadata={"description": "Runs that this one started. Only in the answer to GET."}
    )


class RunAnswer(Named):
    """One run."""

    data = fields.Nested(RunSchema, required=True)


class RunList(ListAnswer):
    """Runs, newest first."""

    data = fields.List(fields.Nested(RunSchema), required=True)


_METADATA = (
    "While it waits: `waitingFor` (its type) and `wakeAt`. Inside of loops: `iteration`, the loops"
    " round it from the outermost on, as `{loop, iteration}`. Of a nested run: `childRunId`."
)


class StepSchema(Named):
    """STEP: one attempt at one node."""

    id = fields.String(required=True)
    run_id = fields.String(required=True)
    metronome_id = fields.String(required=True)
    node_id = fields.String(required=True)
    node_type = fields.String(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STEP_STATUSES))
    attempt = _count("Of this node, from 1.")
    input = fields.Dict(required=True, allow_none=True)
    output = fields.Dict(required=True, allow_none=True)
    metadata = fields.Dict(required=True, metadata={"description": _METADATA})
    duration_ms = _count("From startedAt to completedAt.", nullable=True)
    error = fields.String(required=True, allow_none=True)
    started_at = moment("When it started; null for a node that never did.")
    completed_at = moment("When it ended.")
    created_at = moment("When it was written.", nullable=False)
    updated_at = moment("When it last changed.", nullable=False)


class StepList(ListAnswer):
    """The trace of a run, in order."""

    data = fields.List(fields.Nested(StepSchema), required=True)
