"""What comes in: bodies and query strings, parsed, bounded and checked against their schemas."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

import flask
import marshmallow as ma
from webargs.core import missing
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from app.domain.errors import Invalid

_NO_CODING = frozenset({"", "identity"})
_SHOWN = 3  # fields that the message names; the details have all


class Arguments(FlaskParser):
    """Reads requests more strictly than webargs does, and refuses them in our own words."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"json": None, "query": ma.RAISE}  # noqa: RUF012 - webargs' way

    def load_json(self, req: flask.Request, schema: ma.Schema) -> Any:
        """The body as a JSON object; ``missing`` where there is none.

        It is parsed by the standard library: orjson would turn big integers into floats, and stop
        at a NaN before we can name the field that holds it.
        """
        raw = whole_body(req)
        if not raw:
            return missing
        if not (getattr(schema, "any_media_type", False) or _is_json(req)):
            raise UnsupportedMediaType("send the body as JSON: `Content-Type: application/json`")
        body = parse(raw, unique=True)
        if not isinstance(body, dict):
            raise BadRequest("the body must be a JSON object")
        return body

    def load_querystring(self, req: flask.Request, schema: ma.Schema) -> Any:
        """The query's parameters. One that is no list comes once: which is meant can't be told."""
        several = {
            field.data_key for field in schema.fields.values() if isinstance(field, ma.fields.List)
        }
        twice = [
            name for name, values in req.args.lists() if len(values) > 1 and name not in several
        ]
        if twice:
            told = "comes more than once in the query"
            raise Invalid(f"{twice[0]}: {told}", details={name: [told] for name in twice})
        return super().load_querystring(req, schema)

    def handle_error(
        self,
        error: ma.ValidationError,
        req: flask.Request,
        schema: ma.Schema,
        *,
        error_status_code: int | None,
        error_headers: Mapping[str, str] | None,
    ) -> NoReturn:
        """Refuse a request whose fields are not acceptable, naming them all."""
        details: dict[str, list[str]] = {}
        for messages in error.messages_dict.values():  # by location, of which we have one
            _flatten(messages, "", details)
        told = [f"{name}: {' '.join(messages)}" for name, messages in details.items()]
        if len(told) > _SHOWN:
            told = [*told[:_SHOWN], f"and {len(told) - _SHOWN} more"]
        raise Invalid("; ".join(told), details=details)


def whole_body(req: flask.Request) -> bytes:
    """The body as it came. Raises RequestEntityTooLarge, or UnsupportedMediaType if compressed."""
    coding = req.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() not in _NO_CODING:
        raise UnsupportedMediaType("send the body as it is: without `Content-Encoding`")
    raw = req.get_data()
    # Of a chunked body, werkzeug reads as much as is allowed and says nothing of the rest.
    limit = req.max_content_length
    if req.content_length is None and limit is not None and len(raw) >= limit:
        raise RequestEntityTooLarge
    return raw


def parse(raw: bytes, *, unique: bool = False) -> Any:
    """The value of a JSON text. Raises BadRequest, whose message tells where it is wrong.

    With ``unique`` no object may have two fields of one name: which is meant can't be told.
    """
    try:
        return json.loads(raw.decode(), object_pairs_hook=_once if unique else None)
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadRequest(f"the body is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    except ValueError:  # Python's limit on the digits of an integer
        raise BadRequest("the body holds a number that is too long") from None


def _once(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(fields)
    if len(found) < len(fields):
        twice, _ = Counter(name for name, _ in fields).most_common(1)[0]
        raise BadRequest(f"the body has the field {twice!r} twice in one object")
    return found


def _is_json(req: flask.Request) -> bool:
    return req.mimetype == "application/json" or (
        req.mimetype.startswith("application/") and req.mimetype.endswith("+json")
    )


def _flatten(messages: Any, path: str, into: dict[str, list[str]]) -> None:
    """marshmallow's nested messages as ``{"a.b": [...]}``."""
    if isinstance(messages, Mapping):
        for key, inner in messages.items():
            name = "" if key == "_schema" else str(key)
            _flatten(inner, ".".join(part for part in (path, name) if part), into)
    else:
        into.setdefault(path or "body", []).extend(str(message) for message in messages)
