"""Audit events in requests and answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import fields, validate

from app.api.schemas.base import (
    CREATED_AFTER,
    CREATED_BEFORE,
    ListAnswer,
    Moment,
    Named,
    PageQuery,
    Text,
    id_cursor,
    moment,
)

_MAX_ACTIONS = 50


class Actions(fields.List[str]):
    """One action or several, between commas or as a parameter that comes several times."""

    def __init__(self) -> None:
        super().__init__(
            Text(1, 100, pattern=r"[a-z_.]+"),
            load_default=(),
            validate=validate.Length(max=_MAX_ACTIONS),
            metadata={
                "description": "Only these, such as `run.cancelled`; several are separated by"
                " commas."
            },
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> Any:
        wanted = [one for text in value for one in str(text).split(",")]
        return tuple(super()._deserialize(wanted, attr, data, **kwargs))


class AuditQuery(PageQuery):
    """Which audit events to list."""

    cursor = id_cursor("evt")
    metronome_id = Text(1, 100, metadata={"description": "Only those of this workflow."})
    run_id = Text(1, 100, metadata={"description": "Only those of this run."})
    version_id = Text(
        1, 100, metadata={"description": "Only those of this version and of its runs."}
    )
    action = Actions()
    actor_user_id = Text(1, 200, metadata={"description": "Only what this user did."})
    created_after = Moment(CREATED_AFTER)
    created_before = Moment(CREATED_BEFORE)


class AuditSchema(Named):
    """AUDIT: who changed what."""

    id = fields.String(required=True)
    metronome_id = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "Null for what concerns the whole organization."},
    )
    user_id = fields.String(
        required=True, metadata={"description": "The owner of what was changed."}
    )
    actor_user_id = fields.String(required=True, metadata={"description": "Who changed it."})
    actor_key_id = fields.String(
        required=True, metadata={"description": "By which API key; or which part of the server."}
    )
    run_id = fields.String(required=True, allow_none=True)
    version_id = fields.String(required=True, allow_none=True)
    action = fields.String(required=True, metadata={"description": "docs/audit.rst lists them."})
    payload = fields.Dict(
        allow_none=True, metadata={"description": "More about it: before and after, as a rule."}
    )
    created_at = moment("When it happened.", nullable=False)


class AuditList(ListAnswer):
    """Audit events, newest first."""

    data = fields.List(fields.Nested(AuditSchema), required=True)
