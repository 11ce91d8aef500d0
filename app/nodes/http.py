"""The http node: one request to another service.

Config, where * may hold bindings: ``url`` *, ``method`` * (GET), ``headers`` *, ``body`` * (JSON,
or a text that is sent as it is), ``timeoutMs`` (for everything, retries included), ``okStatuses``
(200 to 299; a redirect named here is not followed), ``idempotent`` (a second request does no harm),
``retries`` (0 to 10; 0). Output: ``{status, headers, body}``, the body parsed where it is JSON.

A request is repeated inside of the node only where it was never sent, or where it is replay-safe
and met a broken connection or a 429, 502, 503 or 504. ``Retry-After`` is honoured up to 60 seconds.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any

from urllib3.exceptions import DecodeError, HTTPError
from urllib3.response import BaseHTTPResponse

from app.domain.errors import ValueRefused
from app.domain.jsonvalue import check_json
from app.domain.outcomes import Done, Failed, Interrupted, Outcome
from app.nodes import message
from app.nodes.base import Context, NodeKind, NodeLimits, Problem
from app.nodes.bindings import binding_problems, has_bindings, is_whole
from app.nodes.fields import HAS_BINDINGS, Field, anything, flag, output, whole
from app.nodes.guard import AddressRefused
from app.nodes.message import MASK, BadRequest, Request, TooBig
from app.nodes.wire import Call, Cut, described, open_connection

MAX_REDIRECTS = 5
MAX_RETRIES = 10
MAX_RETRY_AFTER = 60.0  # seconds
_FIRST_BACKOFF = 0.5  # seconds
_MAX_BACKOFF = 10.0  # seconds

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({429, 502, 503, 504})


def _any_case(words: Iterable[str]) -> str:
    """A pattern for the words in letters of any case, for which JSON Schema has no flag."""
    spelt = ("".join(f"[{sign}{sign.lower()}]" for sign in word) for word in words)
    return f"^({'|'.join(spelt)})$"


_HEADERS = {
    "type": "object",
    "maxProperties": message.MAX_HEADERS,
    "additionalProperties": {"type": ["string", "number"], "format": "bindings"},
}


class Http(NodeKind):
    """Sends the request; ends at once on the stop signal."""

    kind = "http"
    effect = "sends a request to another service"
    title = "HTTP request"
    told = "Sends one request to another service."
    fields = (
        Field(
            "url",
            {
                "type": "string",
                "minLength": 1,
                "format": "http-url",
                "description": "An absolute http or https URL without user name and password.",
            },
            needed=True,
        ),
        Field(
            "method",
            {
                "anyOf": [
                    {"enum": [*message.METHODS, None]},
                    {"type": "string", "pattern": _any_case(message.METHODS)},
                    HAS_BINDINGS,
                ],
                "default": "GET",
                "description": "The method, in letters of any case.",
            },
        ),
        Field(
            "headers",
            {
                "anyOf": [_HEADERS, {"type": "null"}, HAS_BINDINGS],
                "description": "By name. Those of the connection itself are refused.",
            },
        ),
        anything("body", "JSON, sent as application/json; or a text, sent as it is."),
        Field(
            "okStatuses",
            {
                "type": ["array", "null"],
                "minItems": 1,
                "maxItems": 100,
                "items": {"type": "integer", "minimum": 100, "maximum": 599},
                "description": "The status codes that are good; 200 to 299 where it is absent.",
            },
        ),
        flag("idempotent", "A second request does no harm, whatever the method.", default=False),
        whole("retries", "How often the request is repeated inside of the node.", 0, MAX_RETRIES),
    )
    outputs = (
        output("status", "The status code.", type="integer"),
        output("headers", "By name, in lower case.", type="object"),
        output("body", "Parsed where it is JSON, else a text."),
    )
    replay_safe_where = "the method is GET, HEAD, OPTIONS, PUT or DELETE, or idempotent is true"
    bound = ("url", "method", "headers", "body")
    interruptible = True

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[Problem]:
        """Types, ranges, the URL and headers as far as they hold no bindings."""
        for name in self.bound:
            yield from binding_problems(config.get(name), f"config.{name}")
        if config.get("url") and not has_bindings(config["url"]):
            try:
                message.read_url(config.get("url"))
            except BadRequest as error:
                yield Problem("config.url", str(error))
        method = config.get("method")
        if method is not None and not has_bindings(method) and not _is_method(method):
            yield Problem("config.method", f"method must be one of {', '.join(message.METHODS)}.")
        headers = config.get("headers")
        if headers is not None and not has_bindings(headers):
            for name, fault in message.header_faults(headers):
                yield Problem(f"config.headers.{name}" if name else "config.headers", fault)
        if not isinstance(config.get("idempotent"), (bool, type(None))):
            yield Problem("config.idempotent", "idempotent must be true or false.")
        retries = config.get("retries")
        if retries is not None and not is_whole(retries, 0, MAX_RETRIES):
            yield Problem("config.retries", f"retries must be a whole number to {MAX_RETRIES}.")
        statuses = config.get("okStatuses")
        if statuses is not None and not (
            isinstance(statuses, list)
            and 1 <= len(statuses) <= 100
            and all(is_whole(status, 100, 599) for status in statuses)
        ):
            fault = "okStatuses must be a list of status codes, such as [200, 404]."
            yield Problem("config.okStatuses", fault)

    def missing(self, config: Mapping[str, Any]) -> Iterable[Problem]:
        """The URL."""
        if not config.get("url"):
            yield Problem("config.url", "An http node needs a url.")

    def replay_safe(self, config: Mapping[str, Any], limits: NodeLimits) -> bool:
        """Whether the method is one that may be repeated, or the config says ``idempotent``."""
        if config.get("idempotent") is True:
            return True
        method = config.get("method") or "GET"
        return isinstance(method, str) and method.upper() in message.REPLAY_SAFE_METHODS

    def record(self, rendered: Mapping[str, Any]) -> dict[str, Any] | None:
        """The request without its secrets."""
        kept = {name: value for name, value in rendered.items() if value is not None}
        if isinstance(kept.get("url"), str):
            kept["url"] = message.mask_url(kept["url"])
        headers = kept.get("headers")
        if isinstance(headers, dict):
            kept["headers"] = {
                name: MASK if message.is_secret(str(name)) else value
                for name, value in headers.items()
            }
        elif headers is not None:
            kept["headers"] = MASK  # no object: what it holds can't be told apart
        return kept or None

    def run(self, context: Context) -> Outcome:
        """What the service answers."""
        try:
            request = message.build(context.input, context.idempotency_key)
        except BadRequest as error:
            return Failed(str(error), retryable=False)
        timeout_ms = context.config.get("timeoutMs") or context.limits.http_timeout_ms
        with Call(context.stop, timeout_ms / 1000) as call:
            outcome = self._with_retries(context, request, call)
        if outcome is not None:
            return outcome
        if call.cut_by == "timeout":
            return Failed(f"No answer from {request.shown} within {timeout_ms} ms.")
        seen = "while it was under way" if call.sent else "before it was sent"
        return Interrupted(f"The request to {request.shown} was cut off {seen}.")

    def _with_retries(self, context: Context, request: Request, call: Call) -> Outcome | None:
        """Try, and try again; None where the call was cut before there was an outcome."""
        attempt = 0
        while True:
            call.sent = False
            end = self._attempt(context, request, call)
            if end is None:
                return None
            attempt += 1
            if not end.may_repeat or attempt > (context.config.get("retries") or 0):
                return end.outcome
            backoff = min(_MAX_BACKOFF, _FIRST_BACKOFF * 2 ** (attempt - 1))
            jittered = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, no secret
            pause = jittered if end.retry_after is None else end.retry_after
            if pause >= call.remaining():
                return end.outcome
            try:
                call.wait(pause)
            except Cut:
                return None

    def _attempt(self, context: Context, request: Request, call: Call) -> _End | None:
        """One try with its redirects; None where the call was cut."""
        safe = self.replay_safe({**context.config, "method": request.method}, context.limits)
        try:
            for _ in range(MAX_REDIRECTS + 1):
                answer = _exchange(context, request, call)
                if isinstance(answer, _End):
                    return replace(answer, may_repeat=answer.may_repeat and safe)
                request = answer
            fault = f"More than {MAX_REDIRECTS} redirects, the last one to {request.shown}."
            return _End(Failed(fault, retryable=False))
        except Cut:
            return None
        except (AddressRefused, BadRequest) as error:
            return _End(Failed(f"{error} ({request.shown})", retryable=False))
        except TooBig:
            limit = context.limits.http_max_bytes
            fault = f"The answer from {request.shown} is bigger than {limit:,} bytes."
            return _End(Failed(fault, retryable=False))
        except (OSError, HTTPException, HTTPError, ValueError) as error:
            if call.cut_by is not None:
                return None  # the socket was shut under the library, which may call that anything
            lasting = isinstance(error, (ssl.SSLCertVerificationError, DecodeError))
            fault = f"The request to {request.shown} failed: {described(error)}."
            repeat = (safe or not call.sent) and not lasting
            return _End(Failed(fault, retryable=not lasting), repeat)


@dataclass(frozen=True, slots=True)
class _End:
    """How one try ended, whether it may be repeated, and what Retry-After said, in seconds."""

    outcome: Outcome
    may_repeat: bool = False
    retry_after: float | None = None


def _exchange(context: Context, request: Request, call: Call) -> Request | _End:
    """Send one request: the request that a redirect asks for, or the end of the try."""
    url = request.url
    host = (url.host or "").strip("[]")
    allowed = context.limits.http_allowed_private
    connection = open_connection(call, str(url.scheme), host, url.port, allowed)
    try:
        connection.connect()
        call.check()  # a socket that was shut before its TLS handshake passes for connected
        call.sent = True
        connection.request(
            request.method,
            url.request_uri,
            body=request.body,
            headers=request.headers,
            preload_content=False,
        )
        response = connection.getresponse()
        wanted = context.config.get("okStatuses")
        status = response.status
        location = response.headers.get("location")
        if status in _REDIRECTS and location and status not in (wanted or ()):
            return message.redirected(request, status, location)
        body = message.read_body(response, context.limits.http_max_bytes)
        call.check()  # what ended because the socket was shut may look like a short, whole answer
    finally:
        connection.close()
    output = message.as_output(response, body)
    try:
        check_json(output, "output", max_bytes=context.limits.output_max_bytes)
    except ValueRefused as error:
        fault = f"The answer from {request.shown} can't be kept: {error.message}."
        return _End(Failed(fault, retryable=False))
    if status in wanted if wanted else 200 <= status < 300:
        return _End(Done(output))
    again = status >= 500 or status in (408, 429)
    fault = f"HTTP {status} from {request.shown}"
    failed = Failed(fault, retryable=again, output=output)
    return _End(failed, status in _BUSY, _retry_after(response))


def _retry_after(response: BaseHTTPResponse) -> float | None:
    """The header Retry-After, seconds or a date, in seconds from 0 to a minute."""
    value = (response.headers.get("retry-after") or "").strip()
    if value.isascii() and value.isdigit():
        return min(MAX_RETRY_AFTER, float(value[:6]))
    try:
        moment = parsedate_to_datetime(value)
        # The server's own clock is what its date was made from.
        now = parsedate_to_datetime(response.headers.get("date") or "")
        wait = (moment.astimezone(UTC) - now.astimezone(UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(MAX_RETRY_AFTER, max(0.0, wait))


def _is_method(value: Any) -> bool:
    return isinstance(value, str) and value.upper() in message.METHODS
