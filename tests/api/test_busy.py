"""Requests for workflows that somebody else has locked for long: they don't wait with them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from app.db import Database
from tests.api import states
from tests.api.conftest import Caller, data, refused
from tests.api.definitions import called, publishable
from tests.processes import PATIENCE


def test_nobody_waits_for_long_for_a_workflow_that_somebody_else_has_locked(
    api: Caller, db: Database
) -> None:
    def workflow() -> str:
        return api.new_metronome(publishable(), concurrency={"maxConcurrentRuns": 1})

    def version() -> str:
        path = f"{workflow()}/versions"
        return f"{path}/{data(api.post(path, {}), 201)['id']}"

    published = api.new_metronome(called("go"))
    data(api.post(f"{published}/publish", {}))
    limited, _, saved = version().partition("/versions/")
    wanted: list[tuple[str, str, Any]] = [
        ("PATCH", workflow(), {"name": "new"}),
        ("POST", f"{workflow()}/versions", {}),
        ("PATCH", version(), {"description": "new"}),
        ("DELETE", version(), None),
        ("POST", f"{workflow()}/publish", {}),
        ("POST", f"{limited}/runs", {"versionId": saved}),
        ("POST", f"{published}/triggers/function/go", {"payload": {}}),
    ]
    with states.raw(db) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("SELECT FROM metronomes FOR UPDATE")
        with ThreadPoolExecutor(len(wanted)) as pool:
            waiting = [pool.submit(api.send, *one[:2], json=one[2]) for one in wanted]
            answers = [one.result(PATIENCE) for one in waiting]
        connection.commit()
    for answer in answers:
        body = refused(answer, 503, "busy")
        assert "send the request again" in body["message"]
        assert answer.headers["Retry-After"]
    for method, path, sent in wanted:
        assert api.send(method, path, json=sent).status_code < 300
