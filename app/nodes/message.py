"""HTTP requests and answers of the http node: built from a config, read into JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

import orjson
from urllib3.exceptions import LocationParseError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Url, parse_url

from app.domain.errors import ValueRefused
from app.domain.jsonvalue import check_json, clean_text
from app.domain.values import is_number, text

METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH")
REPLAY_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
MASK = "***"
MAX_HEADERS = 100

_MAX_URL = 8_000  # characters
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_BAD_IN_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# The connection's own business: setting them would let a config smuggle a second request.
_REFUSED_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_SECRET = re.compile(r"token|secret|key|password|^authorization$|^proxy-auth|^cookie$", re.I)
_SECRET_QUERY = re.compile(r"([?&][^=&#]*(?:token|secret|key|password)[^=&#]*=)[^&#]*", re.I)
_CREDENTIALS = re.compile(r"//[^/?#]*@")
_CHARSET = re.compile(r"charset=[\"']?([A-Za-z0-9_-]+)", re.I)
_CHARSETS = re.compile(
    r"utf-?8|us-ascii|ascii|utf-?16(le|be)?|iso-?8859-\d{1,2}|latin-?1|windows-125\d|cp125\d"
    r"|shift_jis|euc-jp|euc-kr|gbk|gb2312|gb18030|big5|koi8-[ru]",
    re.I,
)
_BODY_HEADERS = ("content-type", "content-encoding", "content-language", "content-location")


class BadRequest(ValueError):
    """A request that can't be sent; the message holds no header's value."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``headers`` by lower-case name, ``body`` as it goes over the wire."""

    method: str
    url: Url
    headers: Mapping[str, str]
    body: bytes | None

    @property
    def shown(self) -> str:
        """The URL for errors: without query and credentials."""
        return show(self.url)


def show(url: Url) -> str:
    """``https://host/path``, without query, fragment and credentials, at most 200 characters."""
    port = f":{url.port}" if url.port else ""
    whole = f"{url.scheme}://{url.host}{port}{url.path or '/'}"
    return clean_text(whole, 200)


def is_secret(name: str) -> bool:
    """Whether the value of a header must not be shown."""
    return name.lower() != "idempotency-key" and _SECRET.search(name) is not None


def mask_url(url: str) -> str:
    """``url`` without credentials, and without the values of secret-looking query parameters."""
    return _SECRET_QUERY.sub(rf"\1{MASK}", _CREDENTIALS.sub(f"//{MASK}@", url))


def read_url(value: Any) -> Url:
    """The parts of an absolute http or https URL. Raises BadRequest with what is wrong."""
    if not isinstance(value, str) or not value.strip():
        raise BadRequest("url must be a text: an absolute http or https URL.")
    if len(value) > _MAX_URL:
        raise BadRequest(f"url is longer than {_MAX_URL:,} characters.")
    if re.search(r"[\x00-\x1f\x7f]", value.strip()):
        raise BadRequest("url holds a control character.")
    try:
        url = parse_url(value.strip())
    except (LocationParseError, ValueError):
        raise BadRequest("url can't be read as a URL.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise BadRequest("url must begin with http:// or https:// and name a host.")
    if url.auth is not None:
        raise BadRequest("url must not hold a user name or a password: use a header.")
    return url


def header_faults(headers: Any) -> Iterator[tuple[str, str]]:
    """What is wrong with an object of headers, as (name or "", message without the value)."""
    if not isinstance(headers, dict):
        yield "", "headers must be an object."
        return
    if len(headers) > MAX_HEADERS:
        yield "", f"There are more than {MAX_HEADERS} headers."
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            yield name, f"{name[:40]!r} is no name of a header."
        elif name.lower() in _REFUSED_HEADERS:
            yield name, f"The header {name} is set by the connection itself."
        elif not isinstance(value, str) and not is_number(value):
            yield name, f"The value of the header {name} must be a text or a number."
        elif isinstance(value, str) and _BAD_IN_HEADER.search(value):
            yield name, f"The value of the header {name} holds a control character."
        elif isinstance(value, str) and any(ord(c) > 255 for c in value):
            yield name, f"The value of the header {name} holds characters beyond Latin-1."


def build(rendered: Mapping[str, Any], idempotency_key: str) -> Request:
    """The request of a config whose bindings are filled in. Raises BadRequest."""
    method = rendered.get("method") or "GET"
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise BadRequest(f"method must be one of {', '.join(METHODS)}.")
    headers = rendered.get("headers") or {}
    for _, message in header_faults(headers):
        raise BadRequest(message)
    made = {
        "user-agent": "Metronome",
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        "idempotency-key": idempotency_key,
    }
    body = rendered.get("body")
    data: bytes | None = None
    if isinstance(body, str):
        data = body.encode()
        made["content-type"] = "text/plain; charset=utf-8"
    elif body is not None:
        data = orjson.dumps(body)
        made["content-type"] = "application/json"
    made.update({name.lower(): text(value).strip() for name, value in headers.items()})
    return Request(method.upper(), read_url(rendered.get("url")), made, data)


def redirected(request: Request, status: int, location: str) -> Request:
    """The request that follows a redirect. Raises BadRequest where its URL is not acceptable."""
    url = read_url(urljoin(str(request.url), location))
    method, body, headers = request.method, request.body, dict(request.headers)
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body = "GET", None
        for name in _BODY_HEADERS:
            headers.pop(name, None)
    if _origin(url) != _origin(request.url):
        headers = {name: value for name, value in headers.items() if not is_secret(name)}
        headers.pop("host", None)
    return replace(request, method=method, url=url, headers=headers, body=body)


def _origin(url: Url) -> tuple[str | None, str | None, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


class TooBig(Exception):
    """The body of an answer is bigger than allowed."""


def read_body(response: BaseHTTPResponse, most: int) -> bytes:
    """The body, decompressed piece by piece. Raises TooBig beyond ``most`` bytes."""
    parts: list[bytes] = []
    length = 0
    for part in response.stream(65_536, decode_content=True):
        length += len(part)
        if length > most:
            raise TooBig
        parts.append(part)
    return b"".join(parts)


def as_output(response: BaseHTTPResponse, body: bytes) -> dict[str, Any]:
    """``{status, headers, body}``; the body parsed where it is JSON, else text that can be stored.

    JSON that could not be stored (a NUL, an integer beyond 64 bits, too deep) stays a text.
    """
    headers = {name.lower(): clean_text(value, 8_000) for name, value in response.headers.items()}
    return {
        "status": response.status,
        "headers": headers,
        "body": _read(body, headers.get("content-type", "")),
    }


def _read(body: bytes, content_type: str) -> Any:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json") or body.lstrip()[:1] in (b"{", b"["):
        try:
            parsed = orjson.loads(body)
            check_json(parsed, "body", max_bytes=8 * len(body) + 100)
            return parsed
        except (ValueError, ValueRefused):
            pass
    found = _CHARSET.search(content_type)
    charset = found.group(1) if found and _CHARSETS.fullmatch(found.group(1)) else "utf-8"
    try:
        decoded = body.decode(charset, "replace")
    except (LookupError, UnicodeError):
        decoded = body.decode("utf-8", "replace")
    return clean_text(decoded.removeprefix("\ufeff"), len(decoded))
