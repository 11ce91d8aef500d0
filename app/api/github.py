"""GitHub's webhooks over HTTP. No API key is needed, but a signature or the webhook's secret."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

from flask import Response, request
from werkzeug.exceptions import BadRequest

from app.api import arguments
from app.api.blueprint import Blueprint
from app.api.context import db, free_places, tell_due
from app.api.schemas.triggers import GithubQuery, InboundAnswer
from app.api.triggers import delivered
from app.domain.errors import ValueRefused
from app.services import github as service
from app.services.github import Headers
from app.services.webhooks import Proof

github = Blueprint(
    "github",
    prefix="/v1/metronomes/github",
    description="GitHub's webhooks.",
    security="webhookSignature",
)

SECRET_HEADER = "X-Computer-Agents-Webhook-Secret"  # noqa: S105 - its name
_FORM = "application/x-www-form-urlencoded"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DELIVERY = re.compile(r"[!-~]{1,255}")


def _header(name: str, told: str, pattern: str, *, required: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": required,
        "description": told,
        "schema": {"type": "string", "pattern": f"^{pattern}$"},
    }


_HEADERS = (
    _header("X-GitHub-Event", "The event's name.", _NAME.pattern, required=True),
    _header("X-GitHub-Delivery", "The delivery's id: it is taken once.", _DELIVERY.pattern),
    _header(SECRET_HEADER, "The webhook's secret, instead of a signature.", "[!-~]{16,200}"),
)
_BODY = {
    "required": True,
    "description": "The event, as GitHub sends it: as JSON, or as the field `payload` of a form.",
    "content": {
        "application/json": {"schema": {"type": "object"}},
        _FORM: {
            "schema": {
                "type": "object",
                "properties": {"payload": {"type": "string", "format": "json"}},
                "required": ["payload"],
            }
        },
    },
}


@github.operation(
    "POST",
    "/inbound",
    InboundAnswer,
    query=GithubQuery,
    told="What the event came to, for each workflow that listens for GitHub's events.",
    refuses=[400, 413, 415],
    takes=_HEADERS,
)
@github.doc(requestBody=_BODY)  # type: ignore[untyped-decorator]
def deliver_github_event(query: dict[str, Any]) -> Response:
    """Deliver an event of GitHub's.

    This is the URL for a webhook in GitHub's settings. The secret with which it is signed tells the
    organization. Published workflows with a `github` trigger run if the event matches its filters.
    A delivery that comes again starts nothing anew: it is answered as it was.
    """
    body = arguments.whole_body(request)
    delivery = request.headers.get("X-GitHub-Delivery", "").strip()
    if delivery and not _DELIVERY.fullmatch(delivery):
        raise BadRequest("X-GitHub-Delivery must be 1 to 255 visible ASCII characters")
    proof = Proof(
        signature=request.headers.get("X-Hub-Signature-256"),
        secret=request.headers.get(SECRET_HEADER) or query.get("secret"),
        webhook_id=query.get("webhook"),
    )
    actor = service.admit(db(), body, proof, delivery or None)
    event = request.headers.get("X-GitHub-Event", "").strip()
    if not _NAME.fullmatch(event):
        raise BadRequest("X-GitHub-Event must name the event, as in: push")
    headers = Headers(event, delivery or None)
    try:
        payload, raw = _payload(body)
        found = service.deliver(db(), actor, headers, payload, raw, tell=tell_due, free=free_places)
    except (BadRequest, ValueRefused) as error:
        reason = (error.description if isinstance(error, BadRequest) else error.message) or ""
        service.record_unusable(db(), actor, headers, reason)
        raise BadRequest(reason) from None
    return delivered(found)


def _payload(body: bytes) -> tuple[dict[str, Any], str]:
    """The event, and its text as it came; from a form where it is one."""
    text = body
    if request.mimetype == _FORM:
        try:
            fields = parse_qs(body.decode("ascii"), strict_parsing=True, errors="strict")
        except ValueError:
            raise BadRequest("the body is no form") from None
        given = fields.get("payload", [])
        if len(given) != 1:
            raise BadRequest("the form must have one field `payload`")
        text = given[0].encode()
    payload = arguments.parse(text)
    if not isinstance(payload, dict):
        raise BadRequest("the event must be a JSON object")
    return payload, text.decode()
