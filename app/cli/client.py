"""Talks HTTP to a Metronome server, and says what to do where that does not work."""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click
import urllib3
from click.core import ParameterSource

from app.cli import settings as settings_
from app.config import Settings

KEY_FILE = "api-key"  # in METRONOME_HOME, written by `metronome run`
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0

# A connection that the server has closed meanwhile is no error, where sending again does no harm.
# Nothing else is sent again: not even after a 503 that tells when, since its message is wanted.
_RETRIES = urllib3.Retry(
    total=1,
    connect=0,
    status=0,
    other=0,
    allowed_methods=["GET", "DELETE"],
    respect_retry_after_header=False,
)
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - to connect, not to listen


class ApiError(click.ClickException):
    """The server refused; ``status`` is that of HTTP, ``details`` what the body says of fields."""

    def __init__(self, message: str, status: int, code: str = "", details: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details


class NoAnswer(click.ClickException):
    """No server of ours answers at the URL."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered: its JSON, its headers, and after how many milliseconds."""

    body: dict[str, Any]
    headers: Mapping[str, str]
    ms: float

    @property
    def data(self) -> Any:
        """What the answer is about."""
        return self.body["data"]


class Client:
    """One server and one key; ``key_source`` tells where that is from, and is None without one."""

    def __init__(self, url: str, key: str | None, key_source: str | None) -> None:
        self.url = url.rstrip("/")
        self.key_source = key_source
        self._headers = {"Accept": "application/json", "User-Agent": "metronome-cli"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        self._pool = urllib3.PoolManager(retries=_RETRIES, timeout=timeout)

    def get(self, *path: str, **query: Any) -> Answer:
        """GET /v1/``path``, whose parts are put in quotes; a query value None is left out."""
        wanted = {name: value for name, value in query.items() if value is not None}
        return self.request("GET", _path(path) + (f"?{urlencode(wanted)}" if wanted else ""))

    def post(self, *path: str, body: Any = None) -> Answer:
        """POST ``body`` as JSON to /v1/``path``."""
        return self.request("POST", _path(path), {} if body is None else body)

    def delete(self, *path: str) -> Answer:
        """DELETE /v1/``path``."""
        return self.request("DELETE", _path(path))

    def request(self, method: str, path: str, body: Any = None) -> Answer:
        """Send one request and return what was answered with a status below 400.

        Raises NoAnswer, or ApiError with the message of the error's body.
        """
        content = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, **({"Content-Type": "application/json"} if content else {})}
        began = time.monotonic()
        try:
            response = self._pool.request(
                method, self.url + path, body=content, headers=headers, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise NoAnswer(self._no_answer(error)) from None
        ms = (time.monotonic() - began) * 1000
        try:
            parsed = json.loads(response.data)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict) or 300 <= response.status < 400:
            told = f"{response.status} {response.reason or ''}".strip()
            raise ApiError(
                f"{self.url} answered {told}, but not as a Metronome does: is the URL right?",
                response.status,
            )
        if response.status >= 400:
            raise self._refusal(response.status, parsed)
        return Answer(parsed, response.headers, ms)

    def _refusal(self, status: int, body: Mapping[str, Any]) -> ApiError:
        message = str(body.get("message") or body.get("error") or f"HTTP status {status}")
        if status == 401 and self.key_source:
            message += f"\nThe key was that of {self.key_source}."
        elif status == 401:
            message += (
                "\nThere was no key: use --api-key or METRONOME_API_KEY. `metronome run` prints"
                f" one, and keeps it as {KEY_FILE} in METRONOME_HOME."
            )
        return ApiError(message, status, str(body.get("code", "")), body.get("details"))

    def _no_answer(self, error: urllib3.exceptions.HTTPError) -> str:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, urllib3.exceptions.NameResolutionError):
            return f"there is no host of the name in {self.url}"
        if isinstance(reason, urllib3.exceptions.NewConnectionError):  # it is a TimeoutError too
            return f"nothing listens at {self.url}; start the server with: make run"
        if isinstance(reason, urllib3.exceptions.TimeoutError):
            return f"{self.url} did not answer in time"
        if isinstance(reason, urllib3.exceptions.SSLError):
            return f"no safe connection to {self.url}: {reason}"
        return f"the connection to {self.url} broke: {reason}"


def _path(parts: tuple[str, ...]) -> str:
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def connect(url: str | None, key: str | None) -> Client:
    """A client from the options, or from what the environment says where they are None.

    The keys of this machine's own server go to no other host.
    """
    settings = settings_.load()
    url = url or f"http://{settings.address}"
    try:
        parsed = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError:
        parsed = urllib3.util.Url()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise click.UsageError(f"{url!r} is no URL such as http://127.0.0.1:8000")
    if parsed.host in _EVERYWHERE:
        parsed = parsed._replace(host=_EVERYWHERE[parsed.host])
    if key:
        source: str | None = _given_by("api_key", "--api-key", "METRONOME_API_KEY")
    elif _is_here(parsed.host or "", settings):
        key, source = _kept_key(settings)
    else:
        source = None
    if key and not re.fullmatch(r"[!-~]+", key):
        raise click.ClickException(f"the key of {source} holds characters that no key has")
    return Client(parsed._replace(query=None, fragment=None).url, key, source)


def _is_here(host: str, settings: Settings) -> bool:
    bare = host.strip("[]")
    try:
        return ipaddress.ip_address(bare).is_loopback or bare == settings.host
    except ValueError:
        return bare in ("localhost", settings.host.lower())


def _given_by(parameter: str, option: str, variable: str) -> str:
    found = click.get_current_context().get_parameter_source(parameter)
    return variable if found is ParameterSource.ENVIRONMENT else option


def _kept_key(settings: Settings) -> tuple[str | None, str | None]:
    """The key of this machine's server, and where it is from."""
    if settings.bootstrap_key:
        return settings.bootstrap_key, "METRONOME_BOOTSTRAP_KEY"
    path: Path = settings.home / KEY_FILE
    try:
        return path.read_text(errors="replace").strip() or None, str(path)
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        raise click.ClickException(
            f"can't read the key in {path}: {error.strerror}; use --api-key or METRONOME_API_KEY"
        ) from None


def connected(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --url, --api-key and --json; it is called with ``api`` and ``as_json``."""

    @click.option("--url", envvar="METRONOME_URL", help="The server; as a rule HOST:PORT's.")
    @click.option(
        "--api-key", envvar="METRONOME_API_KEY", help="As a rule, the one that METRONOME_HOME has."
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
    @wraps(command)
    def wrapped(*args: Any, url: str | None, api_key: str | None, **options: Any) -> Any:
        return command(*args, api=connect(url, api_key), **options)

    return wrapped


def print_json(document: Any) -> None:
    """Print one JSON document, in UTF-8 whatever the terminal's encoding is."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False).encode())
