"""Requests for a workflow that somebody else has locked for long: they don't wait with them."""

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
    limited = api.new_metronome(publishable(), concurrency={"maxConcurrentRuns": 1})
    version, other = (
        f"{limited}/versions/{data(api.post(f'{limited}/versions', {}), 201)['id']}"
        for _ in range(2)
    )
    published = api.new_metronome(called("go"))
    data(api.post(f"{published}/publish", {}))
    wanted: list[tuple[str, str, Any]] = [
        ("PATCH", limited, {"name": "new"}),
        ("POST", f"{limited}/versions", {}),
        ("PATCH", version, {"description": "new"}),
        ("DELETE", other, None),
        ("POST", f"{limited}/publish", {}),
        ("POST", f"{limited}/runs", {"versionId": version.rpartition("/")[2]}),
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
