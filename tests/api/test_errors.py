from __future__ import annotations

import gzip
import io
import json
import logging
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.api import errors
from app.domain import errors as domain
from app.domain.errors import MetronomeError
from tests.api.conftest import Caller, refused

WRITES = [
    ("POST", "metronomes"),
    ("PATCH", "{metronome}"),
    ("POST", "{metronome}/runs"),
    ("PATCH", "{run}"),
    ("POST", "{run}/cancel"),
]
GARBAGE = [
    b"{",
    b"nope",
    b"[]",
    b"null",
    b"1",
    b'"x"',
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"{}".decode().encode("utf-16"),
    b"\0",
    b"{} {}",
    b"{'name': 1}",
    b"[" * 90_000,
    b'{"a":' * 9_000,
    b'{"name": 1' + b"0" * 5_000 + b"}",
    b"NaN",
]


def paths(api: Caller) -> dict[str, str]:
    run = api.new_run()
    return {"run": run, "metronome": run.partition("/runs/")[0]}


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_what_is_not_a_json_object_is_400(api: Caller, method: str, path: str) -> None:
    path = path.format(**paths(api))
    for body in GARBAGE:
        answer = api.send(method, path, data=body, content_type="application/json")
        refused(answer, 400, "bad_request")


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize(
    "body", [b'{"name": "a", "name": "b"}', b'{"x": [{"y": 1, "name": 1, "z": 2, "name": 1}]}']
)
def test_a_field_that_comes_twice_is_named(
    api: Caller, method: str, path: str, body: bytes
) -> None:
    path = path.format(**paths(api))
    answer = api.send(method, path, data=body, content_type="application/json")
    assert "'name' twice" in refused(answer, 400, "bad_request")["message"]


@pytest.mark.parametrize(("method", "path"), WRITES[:-1])
def test_another_content_type_is_415(api: Caller, method: str, path: str) -> None:
    path = path.format(**paths(api))
    for kind in (None, "", "text/plain", "application/x-www-form-urlencoded", "json", "\xff"):
        answer = api.send(method, path, data=b'{"name": "n"}', content_type=kind)
        refused(answer, 415, "unsupported_media_type")
    for kind in ("application/json; charset=utf-8", "application/merge-patch+json"):
        answer = api.send(method, path, data=b'{"zzz": 1}', content_type=kind)
        refused(answer, 422, "invalid")


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_compressed_body_is_415_and_says_why(api: Caller, method: str, path: str) -> None:
    path = path.format(**paths(api))
    packed = gzip.compress(b'{"name": "n"}')
    answer = api.send(
        method,
        path,
        data=packed,
        content_type="application/json",
        headers={"Content-Encoding": "gzip"},
    )
    assert "Content-Encoding" in refused(answer, 415, "unsupported_media_type")["message"]
    plain = api.send(
        method,
        path,
        data=b'{"zzz": 1}',
        content_type="application/json",
        headers={"Content-Encoding": "identity"},
    )
    refused(plain, 422, "invalid")


def test_a_parameter_that_comes_twice_is_named(api: Caller) -> None:
    runs = api.new_run().rpartition("/")[0]
    for query in ("limit=1&limit=2", "createdAfter=x&createdAfter=y", "q=a&q=a"):
        name = query.partition("=")[0]
        body = refused(api.get(f"{runs}?{query}"), 422, "invalid")
        assert body["details"] == {name: ["comes more than once in the query"]}


def test_no_answer_is_to_be_kept_on_its_way(api: Caller, nobody: Caller) -> None:
    run = api.new_run()
    answers = (api.get(run), api.post(f"{run}/cancel"), nobody.get("/v1/metronomes"))
    for answer in (*answers, nobody.get("/healthz"), nobody.get("/readyz")):
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_body_too_large_is_413(api: Caller, method: str, path: str) -> None:
    path = path.format(**paths(api))
    body = b'{"x": "' + b"x" * 100_000 + b'"}'
    said = api.send(method, path, data=body, content_type="application/json")
    assert "100,000 bytes" in refused(said, 413, "body_too_large")["message"]
    chunked = api.send(
        method,
        path,
        input_stream=io.BytesIO(body),
        content_type="application/json",
        environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
    )
    refused(chunked, 413, "body_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "path_not_found"),
        ("GET", "/v1", 404, "path_not_found"),
        ("GET", "/v1/", 404, "path_not_found"),
        ("GET", "/v1/metronomes/", 404, "path_not_found"),
        ("GET", "/v1//metronomes", 404, "path_not_found"),
        ("POST", "/v1/metronomes//runs", 404, "path_not_found"),
        ("GET", "/docs/../../etc/passwd", 404, "path_not_found"),
        ("GET", "/docs/nothing.js", 404, "path_not_found"),
        ("PUT", "/v1/metronomes", 405, "method_not_allowed"),
        ("GET", "/v1/metronomes/met_1/runs/run_1/cancel", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("BREW", "/v1/metronomes", 405, "method_not_allowed"),
    ],
)
def test_http_errors_have_the_shape_of_all(
    api: Caller, method: str, path: str, status: int, code: str
) -> None:
    answer = api.send(method, path)
    refused(answer, status, code)
    assert ("Allow" in answer.headers) == (status == 405)


def test_head_and_options_are_answered(api: Caller) -> None:
    assert api.send("HEAD", "metronomes").get_data() == b""
    assert api.send("HEAD", "metronomes/met_1").status_code == 404
    options = api.send("OPTIONS", "metronomes")
    assert options.status_code == 200
    assert "POST" in options.headers["Allow"]


def test_every_kind_of_refusal_has_a_status() -> None:
    kinds = [
        kind
        for kind in vars(domain).values()
        if isinstance(kind, type) and issubclass(kind, MetronomeError)
    ]
    assert {kind for kind in kinds if kind is not MetronomeError} == set(errors.STATUS)


def test_a_fault_of_ours_tells_nothing_but_its_number(
    api: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("app.services.transitions.cancel", broken)
    answer = api.post("metronomes/met_1/runs/run_1/cancel", headers={"X-Request-Id": "mine-1"})
    body = refused(answer, 500, "internal_error")
    assert "secret detail" not in answer.get_data(as_text=True)
    assert body["details"] == {"requestId": "mine-1"}
    (record,) = (one for one in caplog.records if one.levelno == logging.ERROR)
    assert record.exc_info is not None
    assert record.__dict__["requestId"] == "mine-1"


def test_a_request_keeps_its_id(api: Caller) -> None:
    header = "X-Request-Id"
    for path in ("/healthz", "metronomes", "/nope"):
        assert api.get(path, headers={header: "a.B-1_:"}).headers[header] == "a.B-1_:"
        for bad in ("", "a b", "x" * 129, "a\tb", "\xe9"):
            given = api.get(path, headers={header: bad}).headers[header]
            assert given.startswith("req_")


def test_a_request_leaves_one_line_in_the_log(
    api: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    path = api.new_run()
    with caplog.at_level(logging.INFO):
        caplog.clear()
        answer = api.post(f"{path}/cancel?token=hidden")
        api.get("/healthz")
    (record,) = (one for one in caplog.records if one.getMessage() == "request")
    told = vars(record)
    assert told["method"] == "POST"
    assert told["path"] == f"/v1/{path}/cancel"
    assert told["status"] == 200
    assert told["ms"] >= 0
    assert told["requestId"] == answer.headers["X-Request-Id"]
    assert told["runId"] == path.rpartition("/")[2]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    (
        *("name", "definition", "description", "status", "triggerSummary", "input", "inputs"),
        *("versionId", "triggerType", "idempotencyKey", "maxAttempts", "timeoutMs"),
        *("attachedProjectId", "nodes", "edges", "id", "kind", "data", "config"),
    )
)
bodies = st.dictionaries(FIELDS | st.text(), json_values | st.dictionaries(FIELDS, json_values))


class Places:
    def __init__(self, api: Caller) -> None:
        self.api = api
        self.paths = paths(api)


@pytest.fixture
def places(api: Caller) -> Places:
    return Places(api)


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=bodies, where=st.sampled_from(WRITES))
def test_no_json_brings_the_server_down(
    places: Places, body: dict[str, Any], where: tuple[str, str]
) -> None:
    method, path = where
    raw = json.dumps(body).encode()
    path = path.format(**places.paths)
    answer = places.api.send(method, path, data=raw, content_type="application/json")
    assert answer.status_code < 500, answer.get_data(as_text=True)
    json.loads(answer.get_data())


def test_the_app_needs_a_database() -> None:
    from app import create_app
    from app.config import Settings, SettingsError

    with pytest.raises(SettingsError, match="DATABASE_URL"):
        create_app(Settings())


def test_nothing_connects_before_the_first_request() -> None:
    from app import create_app
    from app.config import Settings

    app: Flask = create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))
    assert app.test_client().get("/healthz").status_code == 200
