"""The OpenAPI document at /openapi.json, and the interactive pages at /docs that work offline."""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import flask_smorest  # type: ignore[import-untyped]
from flask import Flask, Response, redirect
from flask_swagger_ui import get_swaggerui_blueprint  # type: ignore[import-untyped]
from werkzeug.exceptions import HTTPException

from app.api import dump, errors, links
from app.api.schemas.errors import ErrorSchema

DOCS = "/docs"
OPENAPI = "/openapi.json"

_DESCRIPTION = """\
Queue runs of workflows, watch their traces, and cancel them: when cancel answers 200, nothing else
starts.

Every request below `/v1` carries an API key: `Authorization: Bearer KEY`, and sees what
belongs to the key's organization. (`X-Computer-Agents-Organization` may name it; another one is
refused.) What it may do follows from its role: `x-permission` of an operation is what a role must
allow. Bodies are JSON objects; a field that is not known is refused. Times are ISO 8601 in UTC.
Every error has the same shape: `error`, `message` (for people), `code` (for programs),
`details`."""

_REFUSALS = {
    400: "The body is not JSON, or not an object.",
    401: "There is no valid API key.",
    403: "The key's role does not allow it, or the key is of another organization than named.",
    404: "There is no such thing in your organization.",
    409: "The thing is in a state in which this makes no sense.",
    412: "It has changed: its ETag is none of those in If-Match.",
    413: "The body is too big.",
    414: "The path and the query are longer than 8,190 bytes.",
    415: "The body is not sent as JSON, or is compressed.",
    422: "A field or query parameter is not acceptable; `details` names it.",
    431: "A header is longer than 8,190 bytes, or there are more than 100 of them.",
    500: "A fault of the server's; its log has more under the `requestId`.",
    503: "The database is away or busy, or the process is not ready; send the request again.",
}
_REFUSAL_HEADERS = {401: "WWW-Authenticate", 503: "Retry-After"}


class Api(flask_smorest.Api):  # type: ignore[misc]
    """flask-smorest with our error shape."""

    ERROR_SCHEMA = ErrorSchema
    DEFAULT_ERROR_RESPONSE_NAME = None  # every operation lists its own

    def handle_http_exception(self, error: HTTPException) -> Response:
        """Answer an exception of Flask's (a hook of flask-smorest)."""
        return errors.http_refused(error)

    def _openapi_json(self) -> Response:
        """The document, with links (a hook of flask-smorest)."""
        return dump.answer(links.add(self.spec.to_dict()))

    def _register_responses(self) -> None:
        """Describe the refusals once, by the names that operations use for them."""
        self.spec.components.header(
            "RequestId",
            {
                "description": "The request's number in the log; a caller may send its own.",
                "schema": {"type": "string"},
            },
        )
        for status, description in _REFUSALS.items():
            headers: dict[str, Any] = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
            if status in _REFUSAL_HEADERS:
                headers[_REFUSAL_HEADERS[status]] = {"schema": {"type": "string"}}
            self.spec.components.response(
                HTTPStatus(status).name,
                {
                    "description": description,
                    "headers": headers,
                    "content": {"application/json": {"schema": ErrorSchema}},
                },
            )


def _version() -> str:
    try:
        return version("metronome")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


def install(app: Flask) -> Api:
    """Give ``app`` its documentation; blueprints are registered with what this answers."""
    app.config.update(
        API_TITLE="Metronome",
        API_VERSION=_version(),
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH=OPENAPI.lstrip("/"),
    )
    api = Api(
        app,
        spec_kwargs={
            "info": {"description": _DESCRIPTION, "license": {"name": "MIT"}},
            "security": [{"apiKey": []}],
        },
    )
    api.spec.components.security_scheme(
        "apiKey",
        {"type": "http", "scheme": "bearer", "description": "`metronome keys create` makes one."},
    )
    api.spec.components.security_scheme(
        "callbackToken",
        {"type": "http", "scheme": "bearer", "description": "Comes with the work of a step."},
    )
    api.spec.components.security_scheme(
        "webhookSignature",
        {
            "type": "apiKey",
            "in": "header",
            "name": "X-Hub-Signature-256",
            "description": "`sha256=` and the HMAC-SHA-256 of the body, with the webhook's secret."
            " `metronome webhooks create` makes one.",
        },
    )
    app.register_blueprint(
        get_swaggerui_blueprint(DOCS, OPENAPI, config={"app_name": "Metronome API"})
    )
    app.add_url_rule(DOCS, "docs", lambda: redirect(f"{DOCS}/"))
    app.add_url_rule("/", "home", _home)
    return api


def _home() -> Response:
    return dump.answer({"name": "metronome", "docs": f"{DOCS}/", "openapi": OPENAPI})
