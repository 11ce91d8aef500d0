"""The http node: the requests that it makes, and what it takes from the answers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.outcomes import Done, Failed
from app.nodes import REGISTRY
from app.nodes.base import NodeLimits
from tests.nodes.conftest import header

HTTP = REGISTRY["http"]
Run = Callable[..., Any]


def test_a_get_answers_status_headers_and_parsed_body(run: Run, serve: Run, answer: Run) -> None:
    server = serve(answer(200, b'{"a": [1, null]}', Content_Type="application/json"))
    config = {"url": server.url + "/p/{{ trigger.x }}?q=1", "headers": {"X-N": 5, "A": "é"}}
    outcome = run("http", config, {"trigger": {"x": "a b"}})
    assert outcome.output["body"] == {"a": [1, None]}
    assert outcome.output["status"] == 200
    assert outcome.output["headers"]["content-type"] == "application/json"
    request = server.requests[0]
    assert request.startswith("GET /p/a%20b?q=1 HTTP/1.1\r\n")
    assert header(request, "host") == [f"127.0.0.1:{server.port}"]
    assert header(request, "x-n") == ["5"]
    assert header(request, "idempotency-key") == ["key-1"]
    assert header(request, "user-agent") == ["Metronome"]


@pytest.mark.parametrize(
    ("body", "kind", "sent"),
    [({"a": "é"}, "application/json", '{"a":"Ã©"}'), ("t", "text/plain; charset=utf-8", "t")],
)
def test_a_body_is_sent_as_json_or_as_it_is(
    run: Run, serve: Run, body: object, kind: str, sent: str
) -> None:
    server = serve()
    own = {"idempotency-key": "mine"}
    assert isinstance(
        run("http", {"url": server.url, "method": "post", "body": body, "headers": own}), Done
    )
    head, _, received = server.requests[0].partition("\r\n\r\n")
    assert (head.split()[0], received) == ("POST", sent)
    assert header(head, "content-type") == [kind]
    assert header(head, "idempotency-key") == ["mine"]


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        (b"plain", "text/plain", "plain"),
        (b'[{"a": 1}]', "text/plain", [{"a": 1}]),
        (b"{broken", "application/json", "{broken"),
        (b'{"a": "\\u0000"}', "application/json", '{"a": "\\u0000"}'),
        (b'{"a": "\\ud800"}', "application/json", '{"a": "\\ud800"}'),
        (b"[18446744073709551615]", "application/json", "[18446744073709551615]"),
        (b"[" * 2000 + b"]" * 2000, "application/json", "[" * 2000 + "]" * 2000),
        (b"a\x00b", "text/plain", "a�b"),
        (b"a\xff", "text/plain", "a�"),
        (b"\xe9", "text/plain; charset=latin-1", "é"),
        (b"x", "text/plain; charset=zlib_codec", "x"),
        (b"a-tda", "text/plain; charset=punycode", "a-tda"),
        (b"7", "application/problem+json", 7),
        (b"", "application/json", ""),
    ],
)
def test_a_body_that_is_no_good_json_becomes_storable_text(
    run: Run, serve: Run, answer: Run, body: bytes, kind: str, value: object
) -> None:
    outcome = run("http", {"url": serve(answer(200, body, Content_Type=kind)).url})
    assert outcome.output["body"] == value


def test_a_status_that_is_not_ok_fails_and_keeps_the_answer(
    run: Run, serve: Run, answer: Run
) -> None:
    server = serve(answer(503, b"busy"), answer(404), answer(404), answer(201))
    outcome = run("http", {"url": server.url + "/p?token=s3cret"})
    assert outcome == Failed(f"HTTP 503 from {server.url}/p", True, outcome.output)
    assert outcome.output["body"] == "busy"
    assert run("http", {"url": server.url}).retryable is False
    assert run("http", {"url": server.url, "okStatuses": [404]}).output["status"] == 404
    assert isinstance(run("http", {"url": server.url, "okStatuses": [404]}), Failed)


@pytest.mark.parametrize(
    ("status", "method", "follows", "keeps_body"),
    [
        (301, "POST", "GET", False),
        (302, "POST", "GET", False),
        (303, "PUT", "GET", False),
        (302, "PUT", "PUT", True),
        (307, "POST", "POST", True),
        (308, "POST", "POST", True),
    ],
)
def test_redirects_follow_the_rules_of_methods(
    run: Run, serve: Run, answer: Run, status: int, method: str, follows: str, keeps_body: bool
) -> None:
    server = serve(answer(status, Location="/next?a=1"))
    outcome = run("http", {"url": server.url, "method": method, "body": {"a": 1}})
    assert isinstance(outcome, Done)
    assert server.requests[1].startswith(f"{follows} /next?a=1 ")
    assert server.requests[1].endswith('{"a":1}') is keeps_body
    assert bool(header(server.requests[1], "content-type")) is keeps_body


def test_secrets_do_not_follow_to_another_origin(run: Run, serve: Run, answer: Run) -> None:
    other = serve()
    server = serve(answer(302, Location="/same"), answer(302, Location=other.url + "/other"))
    headers = {"Authorization": "Bearer x", "Cookie": "c", "X-Api-Key": "k", "X-Plain": "p"}
    assert isinstance(run("http", {"url": server.url, "headers": headers}), Done)
    assert header(server.requests[1], "authorization") == ["Bearer x"]
    for name in ("authorization", "cookie", "x-api-key"):
        assert header(other.requests[0], name) == []
    assert header(other.requests[0], "x-plain") == ["p"]


def test_a_redirect_is_checked_as_the_first_address_was(run: Run, serve: Run, answer: Run) -> None:
    inside = serve()
    for target in (
        f"http://127.0.0.2:{inside.port}/",
        "file:///etc/passwd",
        "http://u:p@127.0.0.1/",
    ):
        outcome = run("http", {"url": serve(answer(302, Location=target)).url})
        assert isinstance(outcome, Failed)
        assert not outcome.retryable
    assert inside.requests == []


def test_redirects_end(run: Run, serve: Run, answer: Run) -> None:
    server = serve(*[answer(302, Location="/again")] * 10)
    outcome = run("http", {"url": server.url})
    assert "More than 5 redirects" in outcome.error
    assert len(server.requests) == 6
    assert run("http", {"url": server.url, "okStatuses": [302]}).output["status"] == 302


def test_a_bomb_is_refused_while_it_is_unpacked(run: Run, serve: Run, answer: Run) -> None:
    bomb = gzip.compress(gzip.compress(b"\0" * 50_000_000))
    server = serve(
        answer(200, bomb, Content_Encoding="gzip, gzip"),
        answer(200, gzip.compress(b"ok"), Content_Encoding="gzip"),
        answer(200, b"no gzip", Content_Encoding="gzip"),
        answer(200, b"x" * 101),
    )
    assert "bigger than 1,000,000 bytes" in run("http", {"url": server.url}).error
    assert run("http", {"url": server.url}).output["body"] == "ok"
    assert "can't be decompressed" in run("http", {"url": server.url}).error
    assert "bigger than 100 bytes" in run("http", {"url": server.url}, http_max_bytes=100).error


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nInjected: 1"},
        {"X": "a\nb"},
        {"X\r\nInjected": "1"},
        {"X": "\x00"},
        {"X": "\u20ac"},
        {"X": True},
        {"Transfer-Encoding": "chunked"},
        {"content-length": "5"},
        {"": "x"},
        ["X"],
    ],
)
def test_headers_can_not_break_the_request(run: Run, serve: Run, headers: Any, faults: Run) -> None:
    server = serve()
    scope = {"trigger": {"headers": headers}}
    outcome = run("http", {"url": server.url, "headers": "{{ trigger.headers }}"}, scope)
    assert isinstance(outcome, Failed)
    assert not outcome.retryable
    assert server.requests == []
    assert faults("http", {"url": server.url, "headers": headers})[0].startswith("config.headers")


def test_no_error_shows_the_value_of_a_header(run: Run, serve: Run) -> None:
    for value in ("s3cret\n", "s3cret\u20ac", "s3cret"):
        config = {"url": serve(b"garbage").url, "headers": {"Authorization": value}}
        outcome = run("http", config)
        assert isinstance(outcome, Failed)
        assert "s3cret" not in outcome.error


def test_an_output_that_is_too_big_for_a_step_fails_the_node(
    run: Run, serve: Run, answer: Run
) -> None:
    outcome = run("http", {"url": serve(answer(200, b"x" * 500)).url}, output_max_bytes=400)
    assert "can't be kept" in outcome.error


def test_the_trace_keeps_no_secret() -> None:
    names = [
        "Authorization",
        "cookie",
        "X-Api-Key",
        "Proxy-Authorization",
        "X-Auth-Token",
        "My-Secret",
    ]
    kept = HTTP.record(
        {
            "url": "https://u:pw@h/p?api_key=abc&x=1&access_token=def#f",
            "headers": {**dict.fromkeys(names, "s3cret"), "Idempotency-Key": "k", "A": "b"},
            "body": {"a": 1},
            "method": None,
        }
    )
    assert kept is not None
    assert "s3cret" not in json.dumps(kept)
    assert kept["url"] == "https://***@h/p?api_key=***&x=1&access_token=***#f"
    assert kept["headers"]["Idempotency-Key"] == "k"
    assert kept["headers"]["A"] == "b"
    assert kept["body"] == {"a": 1}
    assert HTTP.record({"headers": "Authorization: s3cret"}) == {"headers": "***"}


@pytest.mark.parametrize(
    ("config", "safe"),
    [
        ({}, True),
        ({"method": "put"}, True),
        ({"method": "POST"}, False),
        ({"method": "PATCH"}, False),
        ({"method": "POST", "idempotent": True}, True),
        ({"method": "{{ trigger.method }}"}, False),
    ],
)
def test_a_request_is_replay_safe_by_its_method_or_its_word(
    config: dict[str, Any], safe: bool
) -> None:
    assert HTTP.replay_safe(config, NodeLimits()) is safe


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"url": 5}, "config.url"),
        ({"url": "ftp://x"}, "config.url"),
        ({"url": "http://u:p@x"}, "config.url"),
        ({"url": "http://x\n"}, None),
        ({"url": "http://x/\ny"}, "config.url"),
        ({"url": "http://{{ ( }}"}, "config.url"),
        ({"url": "{{ trigger.url }}"}, None),
        ({"method": "BREW"}, "config.method"),
        ({"method": 5}, "config.method"),
        ({"headers": {"A": None}}, "config.headers.A"),
        ({"body": ["{{ ( }}"]}, "config.body.0"),
        ({"idempotent": "yes"}, "config.idempotent"),
        ({"retries": 11}, "config.retries"),
        ({"retries": 1.5}, "config.retries"),
        ({"okStatuses": []}, "config.okStatuses"),
        ({"okStatuses": [99]}, "config.okStatuses"),
        ({"okStatuses": 200}, "config.okStatuses"),
    ],
)
def test_a_bad_config_is_named(faults: Run, config: dict[str, Any], field: str | None) -> None:
    assert faults("http", {"url": "https://x.example", **config}) == ([field] if field else [])


@pytest.mark.parametrize("config", [{}, {"url": None}, {"url": ""}])
def test_a_draft_may_lack_the_url(lacks: Run, config: dict[str, Any]) -> None:
    assert lacks("http", config) == ["config.url"]
    assert lacks("http", {"url": "{{ trigger.url }}"}) == []
