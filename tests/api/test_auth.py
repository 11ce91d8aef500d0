from __future__ import annotations

import json
import logging

import pytest
from flask import Flask

from app.db import Database
from app.services import keys
from tests.api.conftest import Caller, refused


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer mtr_" + "x" * 43,
        "Bearer " + "x" * 5_000,
        "Bearer mtr_\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9",
        "Basic YTpi",
        "Bearer a, Bearer b",
    ],
)
def test_without_a_valid_key_there_is_401(nobody: Caller, header: str | None) -> None:
    for method, path in (
        ("GET", "/v1/metronomes"),
        ("POST", "/v1/metronomes/met_1/runs/run_1/cancel"),
        ("GET", "/v1/nothing/here"),
        ("TRACE", "/v1/metronomes"),
    ):
        headers = {} if header is None else {"Authorization": header}
        response = nobody.send(method, path, headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        body = json.loads(response.get_data())
        assert body["code"] in ("unauthorized", "invalid_api_key")


def test_a_revoked_key_is_refused_at_once(app: Flask, db: Database) -> None:
    key, secret = keys.create_key(db, name="k", user_id="u", organization_id="o")
    caller = Caller(app, secret)
    assert caller.get("metronomes").status_code == 200
    keys.revoke_key(db, key.id)
    refused(caller.get("metronomes"), 401, "invalid_api_key")


def test_a_bootstrap_key_of_any_characters_works(app: Flask, db: Database) -> None:
    for secret in ("a=b,c=d;e-f/g+h~i!j$k", 'x"y\\z' * 5):
        assert keys.ensure_bootstrap_key(db, secret)
        assert Caller(app, secret).get("metronomes").status_code == 200


def test_the_scheme_is_not_case_sensitive(app: Flask, api: Caller) -> None:
    given = api.headers["Authorization"].replace("Bearer", "bEARER")
    nobody = Caller(app, None)
    assert nobody.get("metronomes", headers={"Authorization": given}).status_code == 200


def test_another_organization_is_refused(api: Caller) -> None:
    header = "X-Computer-Agents-Organization"
    assert api.get("metronomes", headers={header: "acme"}).status_code == 200
    assert api.get("metronomes", headers={header: " "}).status_code == 200
    for wrong in ("evil", "acm", "acme,evil", "\xff"):
        refused(api.get("metronomes", headers={header: wrong}), 403, "wrong_organization")


def test_a_key_is_never_logged(
    app: Flask, api: Caller, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = api.headers["Authorization"].removeprefix("Bearer ")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of the blue")

    with caplog.at_level(logging.DEBUG):
        api.get("metronomes")
        api.get("metronomes", headers={"Authorization": f"Bearer {secret}x"})
        monkeypatch.setattr("app.services.metronomes.page", broken)
        assert api.get("metronomes").status_code == 500
    assert "out of the blue" in caplog.text
    for record in caplog.records:
        assert secret not in f"{vars(record)} {record.getMessage()}"
    assert secret not in caplog.text
