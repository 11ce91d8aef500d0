"""A body that nobody wants is read all the same, whichever server there is."""

from __future__ import annotations

import io
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.config import MAX_UNREAD_BYTES, Settings

SIZE = 300_000


@pytest.fixture
def app() -> Flask:
    return create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))


def refuse(app: Flask, body: Any, size: int, **environ: Any) -> None:
    """Send a body without a key."""
    answer = app.test_client().post(
        "/v1/metronomes", input_stream=body, content_length=size, environ_overrides=environ
    )
    assert answer.status_code == 401


@pytest.mark.parametrize(("size", "left"), [(SIZE, 0), (MAX_UNREAD_BYTES + 7, 7)])
def test_what_a_refused_request_has_sent_is_read_within_a_bound(
    app: Flask, size: int, left: int
) -> None:
    body = io.BytesIO(b"x" * size)
    refuse(app, body, size, **{"wsgi.input_terminated": True})
    assert len(body.read()) == left


def test_nothing_is_read_of_a_body_whose_end_the_server_does_not_tell(app: Flask) -> None:
    body = io.BytesIO(b"x" * SIZE)
    refuse(app, body, SIZE)
    assert len(body.read()) == SIZE


def test_a_client_that_is_gone_is_answered_nevertheless(app: Flask) -> None:
    class Broken(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise OSError("gone")

    refuse(app, Broken(), SIZE, **{"wsgi.input_terminated": True})
