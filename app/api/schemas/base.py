"""What all schemas are made of: strict fields, and the contract's names for ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from app.api import paging


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


class Named(ma.Schema):
    """A schema whose fields are camelCase outside and snake_case inside."""

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Set the outside name (a hook of marshmallow)."""
        if field_obj.data_key is None:
            field_obj.data_key = _camel(field_name)


class Input(Named):
    """What a client sends; a field that we don't know is refused, since it may be a typo."""

    class Meta:
        """Options of marshmallow."""

        unknown = ma.RAISE

    error_messages = {"unknown": "there is no such field"}  # noqa: RUF012 - marshmallow's way


class Query(Named):
    """The query string of a request."""

    error_messages = {"unknown": "there is no such query parameter"}  # noqa: RUF012


class NoQuery(Query):
    """There is nothing to ask for."""


class Text(fields.String):
    """A text that can be stored: no NUL, no lone surrogate, of ``low`` to ``high`` characters."""

    def __init__(self, low: int, high: int, *, pattern: str | None = None, **options: Any) -> None:
        self._pattern = re.compile(pattern) if pattern else None
        if pattern:
            options["metadata"] = {**options.get("metadata", {}), "pattern": f"^{pattern}$"}
        super().__init__(validate=validate.Length(low, high), **options)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        if "\x00" in value:
            raise ma.ValidationError("holds a NUL character, which can't be stored")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ma.ValidationError("holds a lone surrogate, which is no text") from None
        if self._pattern and not self._pattern.fullmatch(value):
            raise ma.ValidationError(f"does not match {self._pattern.pattern}")
        return value


class Name(Text):
    """A text of up to 200 characters in which there is something to see."""

    def __init__(self, **options: Any) -> None:
        super().__init__(1, 200, metadata={"pattern": r"\S"}, **options)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> str:
        name = super()._deserialize(value, attr, data, **kwargs)
        if name and not name.strip():
            raise ma.ValidationError("is blank")
        return name


class Choice(fields.String):
    """One of a few words."""

    def __init__(self, known: tuple[str, ...], **options: Any) -> None:
        super().__init__(validate=validate.OneOf(known), **options)


class JsonObject(fields.Dict):
    """Any JSON object; its values are checked where it is made into text."""

    default_error_messages = {"invalid": "must be a JSON object"}  # noqa: RUF012 - see Input


class Flag(fields.Boolean):
    """true or false, and nothing that only looks like it."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class QueryFlag(fields.Boolean):
    """``true`` or ``false`` in a query string."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> bool:
        if value not in ("true", "false"):
            raise ma.ValidationError("must be true or false")
        return bool(value == "true")


class QueryNumber(fields.Integer):
    """A whole number in a query string."""

    def __init__(self, low: int, high: int, default: int | None, told: str) -> None:
        super().__init__(
            load_default=default,
            validate=validate.Range(low, high),
            metadata={"description": told},
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> int:
        if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,12}", value):
            raise self.make_error("invalid", input=value)
        return int(value)


class Statuses(fields.List[str]):
    """One status or several, between commas or as a parameter that comes several times."""

    def __init__(self, known: tuple[str, ...]) -> None:
        super().__init__(
            fields.String(validate=validate.OneOf(known)),
            load_default=(),
            metadata={"description": "Only these; several are separated by commas."},
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> Any:
        wanted = [one for text in value for one in str(text).split(",")]
        return tuple(super()._deserialize(wanted, attr, data, **kwargs))


class Moment(fields.Field[datetime]):
    """A time in a request: ISO 8601 with an offset from UTC, or ``Z``."""

    def __init__(self, told: str, **options: Any) -> None:
        metadata = {"type": "string", "format": "date-time", "description": told}
        super().__init__(metadata=metadata, **options)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> datetime:
        try:
            found = datetime.fromisoformat(value if isinstance(value, str) else "")
            if found.utcoffset() is None or not 1 < found.year < 9999:
                raise ValueError
        except ValueError:
            raise ma.ValidationError(
                "must be a time in ISO 8601 with its offset, such as 2026-01-31T12:00:00Z"
            ) from None
        # PostgreSQL knows no offsets of 16 hours and more, which ISO 8601 allows.
        return found.astimezone(UTC)


CREATED_AFTER = "Only what was created at this time or later."
CREATED_BEFORE = "Only what was created before this time."


class Cursor(Text):
    """What the page before has told as ``next_cursor``: it names a thing of this list."""

    def __init__(self, pattern: str) -> None:
        told = "The `next_cursor` of the page before: what comes behind it."
        super().__init__(1, 100, pattern=pattern, metadata={"description": told})
        self._kind = re.compile(pattern)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> str:
        if not (isinstance(value, str) and self._kind.fullmatch(value)):
            raise ma.ValidationError("is no cursor of this list: send a next_cursor of it")
        return super()._deserialize(value, attr, data, **kwargs)


def id_cursor(prefix: str) -> Cursor:
    """The cursor of a list of things whose ids begin with ``prefix``, such as ``run``."""
    return Cursor(f"{prefix}_[A-Za-z0-9_-]+")


def number_cursor() -> Cursor:
    """The cursor of a list of things that have numbers."""
    return Cursor("[0-9]{1,9}")


class PageQuery(Query):
    """Which part of a list is wanted. Each list adds its ``cursor``."""

    # 0 is what the SDK sends when it is asked for nothing.
    limit = QueryNumber(0, paging.MAX_LIMIT, paging.DEFAULT_LIMIT, "How many, at the most.")
    offset = QueryNumber(0, paging.MAX_OFFSET, 0, "How many to pass over.")


def moment(told: str, *, nullable: bool = True) -> fields.String:
    """A time in an answer."""
    return fields.String(
        required=True, allow_none=nullable, metadata={"format": "date-time", "description": told}
    )


class ListAnswer(Named):
    """What all lists have."""

    object = fields.Constant("list", required=True, metadata={"type": "string"})
    has_more = fields.Boolean(required=True, data_key="has_more")
    next_cursor = fields.String(
        required=True,
        allow_none=True,
        data_key="next_cursor",
        metadata={
            "description": "What to send as `cursor` for the next page; null behind the last."
        },
    )


class DeletedAnswer(Named):
    """The thing is gone."""

    success = fields.Boolean(required=True)
    deleted = fields.Boolean(required=True)


class OptionalBody(Input):
    """A body that may be absent, empty or ``{}``, whatever its Content-Type says."""

    any_media_type = True


class EmptyBody(OptionalBody):
    """A body that holds nothing."""
