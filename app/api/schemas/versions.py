"""Versions in requests and answers, and what compares and publishes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from app.api.idempotency import MAX_KEY
from app.api.schemas.base import (
    CREATED_AFTER,
    CREATED_BEFORE,
    Flag,
    Input,
    JsonObject,
    ListAnswer,
    Moment,
    Named,
    OptionalBody,
    PageQuery,
    Query,
    QueryNumber,
    Statuses,
    Text,
    id_cursor,
    moment,
    number_cursor,
)
from app.domain.jsonvalue import same_json
from app.store.schema import VERSION_STATUSES

_MAX_DESCRIPTION = 10_000
_DEFINITION = {"description": "`nodes` and `edges`, in the shape in which they were given."}
_IGNORED = {"description": "Ignored: labels are given out by the server."}
_MAX_INT = 2**31 - 1
_MAX_VERSIONS = 1_000  # of a page: the SDK asks for one, and takes it for all there are
ACTIONS = ("published", "unpublished")


class VersionBody(OptionalBody):
    """A version that is to be saved; without a definition it is the draft as it stands."""

    definition = JsonObject(metadata=_DEFINITION)
    description = Text(0, _MAX_DESCRIPTION, allow_none=True)
    label = fields.Raw(metadata=_IGNORED)
    name = fields.Raw(metadata=_IGNORED)
    idempotency_key = Text(
        1,
        MAX_KEY,
        allow_none=True,
        metadata={"description": "The same as the header `Idempotency-Key`."},
    )


class VersionChanges(Input):
    """What is to be changed of a version; null clears its description."""

    definition = JsonObject(metadata=_DEFINITION)
    description = Text(0, _MAX_DESCRIPTION, allow_none=True)
    label = fields.Raw(metadata=_IGNORED)
    name = fields.Raw(metadata=_IGNORED)


class SnapshotBody(Named):
    """A version as an editor has it; only its definition and description are read."""

    class Meta:
        """Options of marshmallow."""

        unknown = ma.EXCLUDE

    definition = JsonObject(metadata=_DEFINITION)
    description = Text(0, _MAX_DESCRIPTION, allow_none=True)


class PublishVersionBody(OptionalBody):
    """What is to be changed of a version before it is published.

    A snapshot may repeat what stands beside it.
    """

    definition = JsonObject(metadata=_DEFINITION)
    description = Text(0, _MAX_DESCRIPTION, allow_none=True)
    snapshot = fields.Nested(SnapshotBody, allow_none=True, metadata={"description": "Instead."})

    @ma.validates_schema
    def _once(self, data: Mapping[str, Any], **_: Any) -> None:
        snapshot = data.get("snapshot") or {}
        for name in sorted(data.keys() & snapshot.keys()):
            if not same_json(data[name], snapshot[name]):
                raise ma.ValidationError("differs from that in the snapshot; send one", name)


class PublishBody(OptionalBody):
    """What is to be published: a version, a definition, or the draft as it stands."""

    active = Flag(load_default=True, metadata={"description": "false: unpublish."})
    version_id = Text(1, 100, allow_none=True)
    definition = JsonObject(
        metadata={"description": "With `versionId`, that version's from now on; else the draft's."}
    )
    description = Text(
        0, _MAX_DESCRIPTION, allow_none=True, metadata={"description": "Of the version."}
    )

    @ma.validates_schema
    def _fit(self, data: Mapping[str, Any], **_: Any) -> None:
        if data["active"]:
            return
        for name, told in (("version_id", "versionId"), ("definition", "definition")):
            if data.get(name) is not None:
                raise ma.ValidationError("makes no sense where active is false", told)


class UnpublishBody(OptionalBody):
    """Why it is unpublished, for the history."""

    description = Text(0, _MAX_DESCRIPTION, allow_none=True)


class DeploymentsQuery(PageQuery):
    """Which part of the history is wanted."""

    cursor = id_cursor("evt")


class VersionsQuery(PageQuery):
    """Which versions to list."""

    limit = QueryNumber(0, _MAX_VERSIONS, _MAX_VERSIONS, "How many, at the most.")
    cursor = number_cursor()
    status = Statuses(VERSION_STATUSES)
    created_after = Moment(CREATED_AFTER)
    created_before = Moment(CREATED_BEFORE)


class VersionQuery(Query):
    """Which revision of a version to show."""

    revision = QueryNumber(
        0, _MAX_INT, None, "The version as it was at this revision; without one, as it is now."
    )


class DiffQuery(Query):
    """What to compare a version with."""

    against_version_id = Text(
        1, 100, required=True, metadata={"description": "The version to look back from."}
    )


class VersionSchema(Named):
    """VERSION."""

    id = fields.String(required=True)
    metronome_id = fields.String(required=True)
    version = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "From 0; null for what was only run and never saved."},
    )
    label = fields.String(required=True, allow_none=True, metadata={"description": "Such as v3."})
    description = fields.String(required=True, allow_none=True)
    status = fields.String(required=True, validate=validate.OneOf(VERSION_STATUSES))
    definition = fields.Dict(required=True, metadata=_DEFINITION)
    revision = fields.Integer(
        required=True, metadata={"description": "Counts the changes of its definition."}
    )
    node_count = fields.Integer(required=True)
    edge_count = fields.Integer(required=True)
    trigger_summary = fields.String(required=True, allow_none=True)
    created_at = moment("When it was saved.", nullable=False)
    updated_at = moment("When it was last changed.", nullable=False)
    published_at = moment("When it was last published.")


class VersionAnswer(Named):
    """One version."""

    data = fields.Nested(VersionSchema, required=True)


class VersionList(ListAnswer):
    """Versions, the newest first."""

    data = fields.List(fields.Nested(VersionSchema), required=True)


class ChangedSchema(Named):
    """A node or an edge that both versions have, and that differs."""

    id = fields.String(required=True, allow_none=True)
    fields_ = fields.List(
        fields.String(),
        required=True,
        data_key="fields",
        metadata={"description": "Which of its fields differ."},
    )
    before = fields.Dict(required=True)
    after = fields.Dict(required=True)


class ChangesSchema(Named):
    """What was added, removed and changed."""

    added = fields.List(fields.Dict(), required=True)
    removed = fields.List(fields.Dict(), required=True)
    changed = fields.List(fields.Nested(ChangedSchema), required=True)
    added_count = fields.Integer(required=True)
    removed_count = fields.Integer(required=True)
    changed_count = fields.Integer(required=True)


class DiffSchema(Named):
    """What has changed from the base version to the target version."""

    metronome_id = fields.String(required=True)
    base_version_id = fields.String(required=True)
    base_version_number = fields.Integer(required=True, allow_none=True)
    target_version_id = fields.String(required=True)
    target_version_number = fields.Integer(required=True, allow_none=True)
    nodes = fields.Nested(ChangesSchema, required=True)
    edges = fields.Nested(ChangesSchema, required=True)


class DiffAnswer(Named):
    """A comparison."""

    data = fields.Nested(DiffSchema, required=True)


class DeploymentSchema(Named):
    """One publication, or the end of one."""

    id = fields.String(required=True)
    metronome_id = fields.String(required=True)
    version_id = fields.String(required=True)
    version = fields.Integer(required=True)
    version_revision = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "Which of the version's definitions it was: its `revision`."},
    )
    label = fields.String(required=True)
    action = fields.String(required=True, validate=validate.OneOf(ACTIONS))
    description = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The version's when it was published; why it was unpublished."},
    )
    actor_user_id = fields.String(required=True, metadata={"description": "Who did it."})
    created_at = moment("When.", nullable=False)


class DeploymentList(ListAnswer):
    """The history of publications, newest first."""

    data = fields.List(fields.Nested(DeploymentSchema), required=True)
