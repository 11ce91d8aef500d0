"""The http node on the network: addresses, deadlines, the stop signal, retries and TLS."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.domain.outcomes import Done, Failed, Interrupted
from app.domain.stop import Reason, StopSignal
from app.nodes import wire
from tests.nodes.conftest import header
from tests.processes import PATIENCE

PEM = str(Path(__file__).parent / "tls" / "localhost.pem")
Run = Callable[..., Any]
SOON = 15.0  # seconds: a busy machine needs less; what ends it otherwise comes later


def stop_after(stop: StopSignal, reason: Reason, wait: Callable[[], object]) -> None:
    """Set the stop signal in another thread, once ``wait`` has returned."""

    def work() -> None:
        wait()
        stop.set(reason)

    threading.Thread(target=work).start()


def test_private_addresses_are_refused_unless_allowed(run: Run, serve: Run) -> None:
    server = serve()
    outcome = run("http", {"url": server.url}, http_allowed_private=())
    assert isinstance(outcome, Failed)
    assert not outcome.retryable
    assert "private network" in outcome.error
    assert server.requests == []
    assert isinstance(run("http", {"url": server.url}, http_allowed_private=("127.0.0.0/8",)), Done)


def test_a_name_that_resolves_differently_later_gains_nothing(
    run: Run, serve: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = serve()
    asked: list[str] = []

    def answer(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert isinstance(run("http", {"url": f"http://rebinding.example:{inside.port}"}), Done)
    assert asked == ["rebinding.example"]
    assert header(inside.requests[0], "host") == [f"rebinding.example:{inside.port}"]


def test_a_proxy_of_the_environment_is_not_used(
    run: Run, serve: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, server = serve(), serve()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    run("http", {"url": server.url})
    assert (len(proxy.requests), len(server.requests)) == (0, 1)


def drip(before: bytes) -> Callable[[socket.socket], None]:
    """Send a byte now and then, for ever."""

    def send(connection: socket.socket) -> None:
        try:
            connection.sendall(before)
            while True:
                connection.sendall(b"x")
                time.sleep(0.02)
        except OSError:
            pass

    return send


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_dripping_server_meets_the_deadline(run: Run, serve: Run, before: bytes) -> None:
    start = time.monotonic()
    server = serve(drip(before))
    outcome = run("http", {"url": server.url, "timeoutMs": 200})
    assert outcome == Failed(f"No answer from {server.url}/ within 200 ms.", True)
    assert time.monotonic() - start < SOON


def test_the_stop_signal_ends_a_request_that_waits(run: Run, serve: Run) -> None:
    hang = threading.Event()
    server = serve(lambda _: hang.wait(PATIENCE))
    stop = StopSignal()
    stop_after(stop, "cancelled", lambda: server.seen.wait(PATIENCE))
    start = time.monotonic()
    outcome = run("http", {"url": server.url + "/a?b"}, stop=stop)
    hang.set()
    assert outcome == Interrupted(
        f"The request to {server.url}/a was cut off while it was under way."
    )
    assert time.monotonic() - start < SOON


def test_the_stop_signal_ends_a_handshake(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        stop = StopSignal()
        stop_after(stop, "cancelled", silent.accept)
        outcome = run("http", {"url": f"https://127.0.0.1:{silent.getsockname()[1]}"}, stop=stop)
    assert isinstance(outcome, Interrupted)
    assert "before it was sent" in outcome.detail


def test_the_stop_signal_ends_a_connect(run: Run) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        # The queue of connections is full: the next ones get no answer.
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        stop = StopSignal()
        threading.Timer(0.2, stop.set, ("cancelled",)).start()
        start = time.monotonic()
        outcome = run("http", {"url": f"http://127.0.0.1:{address[1]}"}, stop=stop)
        for one in waiting:
            one.close()
    assert isinstance(outcome, Interrupted)
    assert time.monotonic() - start < SOON


def test_the_stop_signal_ends_a_resolution(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, hang = StopSignal(), threading.Event()

    def never(*_: Any, **__: Any) -> list[Any]:
        stop.set("cancelled")
        hang.wait(PATIENCE)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    start = time.monotonic()
    outcome = run("http", {"url": "http://slow.example"}, stop=stop)
    hang.set()
    assert isinstance(outcome, Interrupted)
    assert time.monotonic() - start < SOON


def test_a_signal_that_was_set_before_sends_nothing(run: Run, serve: Run) -> None:
    server, stop = serve(), StopSignal()
    stop.set("cancelled")
    assert isinstance(run("http", {"url": server.url}, stop=stop), Interrupted)
    assert server.requests == []


def test_a_busy_service_is_asked_again(run: Run, serve: Run, answer: Run) -> None:
    busy = answer(429, Retry_After="0")
    server = serve(busy, answer(503, Retry_After="0"), answer(200, b"ok"))
    assert run("http", {"url": server.url, "retries": 2}).output["body"] == "ok"
    assert len(server.requests) == 3
    assert len({request for request in server.requests}) == 1
    for config, tries in (
        ({"retries": 0}, 1),
        ({"retries": 1}, 2),
        ({"retries": 1, "method": "POST"}, 1),
        ({"retries": 1, "method": "POST", "idempotent": True}, 2),
    ):
        server = serve(*[busy] * 5)
        assert isinstance(run("http", {"url": server.url, **config}), Failed)
        assert len(server.requests) == tries


def test_a_broken_connection_is_tried_again_where_that_is_safe(
    run: Run, serve: Run, answer: Run
) -> None:
    server = serve(b"", answer(200))
    assert isinstance(run("http", {"url": server.url, "retries": 1}), Done)
    server = serve(b"", answer(200))
    outcome = run("http", {"url": server.url, "retries": 1, "method": "POST"})
    assert isinstance(outcome, Failed)
    assert len(server.requests) == 1


def test_a_long_retry_after_does_not_outlast_the_deadline(
    run: Run, serve: Run, answer: Run
) -> None:
    server = serve(answer(503, Retry_After="30"))
    start = time.monotonic()
    outcome = run("http", {"url": server.url, "retries": 1, "timeoutMs": 25_000})
    assert outcome.error.startswith("HTTP 503")
    assert time.monotonic() - start < SOON


def test_the_stop_signal_ends_a_pause_between_tries(run: Run, serve: Run, answer: Run) -> None:
    server, stop = serve(answer(503, Retry_After="20")), StopSignal()
    stop_after(stop, "paused", lambda: server.seen.wait(PATIENCE))
    start = time.monotonic()
    assert isinstance(run("http", {"url": server.url, "retries": 1}, stop=stop), Interrupted)
    assert time.monotonic() - start < SOON


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's TLS settings, which the node is made to trust."""
    client = ssl.create_default_context(cafile=PEM)
    monkeypatch.setattr(wire, "tls_context", lambda: client)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(PEM)
    return server


def test_tls_is_verified_for_the_name_of_the_url(
    run: Run, serve: Run, answer: Run, trusted: ssl.SSLContext
) -> None:
    server = serve(answer(200, b"ok"), tls=trusted)
    outcome = run(
        "http", {"url": f"https://localhost:{server.port}"}, http_allowed_private=["localhost"]
    )
    assert outcome.output["body"] == "ok"
    outcome = run("http", {"url": f"https://127.0.0.1:{server.port}", "retries": 3})
    assert "the TLS certificate is not valid" in outcome.error
    assert not outcome.retryable
    assert len(server.requests) == 1


def test_tls_of_an_unknown_authority_is_refused(run: Run, serve: Run) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    server = serve(tls=context)
    outcome = run(
        "http", {"url": f"https://localhost:{server.port}"}, http_allowed_private=["localhost"]
    )
    assert "the TLS certificate is not valid" in outcome.error
    assert server.requests == []
