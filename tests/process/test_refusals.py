"""What is refused before anybody has read it: what the client reads, and its next request.

The API is started as the README says, in the checkout.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from app.config import MAX_UNREAD_BYTES
from tests.processes import PATIENCE, Live


class Line:
    """One connection to the API, which sends what it is told to."""

    def __init__(self, live: Live) -> None:
        self.connection = http.client.HTTPConnection(live.settings.address, timeout=PATIENCE)
        self.key = {"Authorization": f"Bearer {live.api_key}"}

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, Any]:
        """An answer, and its JSON."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(
            method, path, body, sent, encode_chunked="Transfer-Encoding" in sent
        )
        answer = self.connection.getresponse()
        return answer, json.loads(answer.read())


@pytest.fixture
def line(live: Live) -> Iterator[Line]:
    made = Line(live)
    yield made
    made.connection.close()


@pytest.mark.parametrize("size", [300_000, 1_000_000, 2_000_000])
def test_behind_a_big_refused_request_the_same_connection_goes_on(line: Line, size: int) -> None:
    answer, _ = line.ask("POST", "/v1/metronomes", b"x" * size, Authorization="Bearer wrong")
    assert answer.status == 401
    assert answer.getheader("Connection") == "keep-alive"
    kept = line.connection.sock
    assert line.ask("GET", "/healthz")[0].status == 200
    assert line.connection.sock is kept


def test_a_body_that_is_too_big_is_told_and_the_connection_goes_on(line: Line) -> None:
    answer, told = line.ask(
        "POST", "/v1/metronomes", b"x" * 1_000_001, **line.key, Content_Type="application/json"
    )
    assert (answer.status, told["code"]) == (413, "body_too_large")
    assert line.ask("GET", "/healthz")[0].status == 200


def test_the_connection_is_closed_behind_what_nobody_reads(line: Line) -> None:
    answer, _ = line.ask("POST", "/v1/metronomes", b"x" * (MAX_UNREAD_BYTES + 1))
    assert answer.status == 401
    assert answer.getheader("Connection") == "close"


def test_the_connection_is_closed_behind_a_chunked_request(line: Line) -> None:
    answer, _ = line.ask(
        "POST", "/v1/metronomes", iter([b"x" * 300_000]), **{"Transfer-Encoding": "chunked"}
    )
    assert answer.status == 401
    assert answer.getheader("Connection") == "close"


def test_a_query_of_more_than_four_thousand_bytes_is_answered(line: Line) -> None:
    longest = {"actorUserId": 200, "runId": 100, "versionId": 100, "metronomeId": 100}
    query = "&".join(f"{name}={quote('🙂' * length)}" for name, length in longest.items())
    answer, told = line.ask("GET", f"/v1/metronomes/audit-events?{query}", **line.key)
    assert (answer.status, told["data"]) == (200, [])


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/v1/metronomes?q=" + "x" * 8190, {}, 414, "uri_too_long"),
        ("/healthz", {"X-Long": "x" * 8190}, 431, "headers_too_large"),
        ("/healthz", {f"X-{number}": "x" for number in range(101)}, 431, "headers_too_large"),
        ("/healthz", {"X-Bad(": "x"}, 400, "bad_request"),
        ("/healthz", {"Transfer-Encoding": "nonsense"}, 501, "not_implemented"),
    ],
    ids=["path", "header", "headers", "name", "coding"],
)
def test_what_gunicorn_refuses_looks_like_every_error(
    line: Line, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer, told = line.ask("GET", path, **headers)
    assert (answer.status, told["code"]) == (status, code)
    assert told.keys() == {"error", "message", "code", "details"}
    assert answer.getheader("Content-Type") == "application/json"
    assert answer.getheader("X-Request-Id", "").startswith("req_")
