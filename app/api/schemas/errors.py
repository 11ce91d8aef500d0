"""The one shape of an error."""

from __future__ import annotations

from marshmallow import Schema, fields


class ErrorSchema(Schema):
    """Why a request was refused."""

    error = fields.String(required=True, metadata={"description": "The status in words."})
    message = fields.String(required=True, metadata={"description": "For people."})
    code = fields.String(required=True, metadata={"description": "For programs."})
    details = fields.Dict(
        required=True,
        metadata={"description": "More to know, such as what is wrong with each field."},
    )
