"""Schedules in requests and answers."""

from __future__ import annotations

from marshmallow import fields

from app.api.schemas.base import ListAnswer, Named, PageQuery, Text, id_cursor, moment


class SchedulesQuery(PageQuery):
    """Which schedules to list."""

    cursor = id_cursor("trg")
    metronome_id = Text(1, 100, metadata={"description": "Only those of this workflow."})


class ScheduleSchema(Named):
    """SCHEDULE: a periodic trigger of a version that is published."""

    id = fields.String(required=True)
    metronome_id = fields.String(required=True)
    version_id = fields.String(required=True)
    user_id = fields.String(required=True, metadata={"description": "The workflow's owner."})
    node_id = fields.String(required=True)
    paused = fields.Boolean(
        required=True, metadata={"description": "Whether the workflow is not active."}
    )
    schedule_type = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "`one-time`, `cron` or `interval`."},
    )
    schedule_timezone = fields.String(required=True, allow_none=True)
    scheduled_time = moment("Of a single time: when it is.")
    cron_expression = fields.String(required=True, allow_none=True)
    interval_seconds = fields.Integer(required=True, allow_none=True)
    next_due_at = moment("When it starts its next run; null where it is paused, or over.")
    upcoming = fields.List(
        fields.String(metadata={"format": "date-time"}),
        required=True,
        metadata={"description": "The next due times, five at the most."},
    )
    created_at = moment("Since when the workflow has this schedule.", nullable=False)


class ScheduleList(ListAnswer):
    """Schedules, newest first."""

    data = fields.List(fields.Nested(ScheduleSchema), required=True)
