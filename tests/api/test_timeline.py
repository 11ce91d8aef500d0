"""The timeline and the result of a run, in every state that it can be in."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from sqlalchemy import event, text

from app.db import Database
from app.services import timeline as service
from tests.api import states
from tests.api.conftest import Caller, data, refused

PARTS = {"run", "triggerEvent", "steps", "hasMoreSteps", "auditEvents", "hasMoreAuditEvents"}


def timeline(api: Caller, path: str, view: str = "full") -> Any:
    return data(api.get(f"{path}/timeline?view={view}"))


@pytest.mark.parametrize("state", [*states.ACTIVE, *states.ENDED])
def test_it_has_what_the_other_answers_have(api: Caller, db: Database, state: str) -> None:
    path = api.new_run(input={"a": 1})
    states.bring(db, path, state)
    found = timeline(api, path)
    assert set(found) == PARTS
    assert found["run"] == data(api.get(path))
    assert found["steps"] == data(api.get(f"{path}/steps"))
    audited = data(api.get(f"metronomes/audit-events?runId={path.rpartition('/')[2]}"))
    assert found["auditEvents"] == audited[::-1]
    assert found["triggerEvent"] is None
    assert (found["hasMoreSteps"], found["hasMoreAuditEvents"]) == (False, False)


@pytest.mark.parametrize("state", ["queued", "running", "completed"])
def test_a_compact_one_has_no_payloads(api: Caller, db: Database, state: str) -> None:
    path = api.new_run(input={"a": 1})
    states.bring(db, path, state)
    with_event(db, path)
    full, compact = timeline(api, path), timeline(api, path, "compact")
    for part, names in (
        ("run", {"input", "output"}),
        ("triggerEvent", {"payload"}),
    ):
        assert compact[part] == {k: v for k, v in full[part].items() if k not in names}
        assert names <= full[part].keys()
    for part, names in (("steps", {"input", "output"}), ("auditEvents", {"payload"})):
        assert compact[part] == [
            {k: v for k, v in one.items() if k not in names} for one in full[part]
        ]
    assert compact["auditEvents"] != []


def test_it_has_what_started_the_run(api: Caller, db: Database) -> None:
    path = api.new_run()
    with_event(db, path)
    found = timeline(api, path)
    assert found["run"]["triggerEventId"] == found["triggerEvent"]["id"] == "evt_9"
    assert found["triggerEvent"]["payload"] == {"n": 1.5, "text": "ü"}
    assert found["triggerEvent"]["status"] == "matched"


def test_steps_in_loops_tell_their_iterations(api: Caller, db: Database) -> None:
    path = api.new_run()
    states.put_step(db, path, 1, "running", node_id="'outer'", node_type="'loop'")
    states.put_step(
        db, path, 2, "running", node_id="'inner'", node_type="'loop'", parent_seq="1", iteration="3"
    )
    states.put_step(db, path, 3, "completed", node_id="'work'", parent_seq="2", iteration="0")
    steps = timeline(api, path)["steps"]
    assert steps == data(api.get(f"{path}/steps"))
    assert steps[2]["metadata"]["iteration"] == [
        {"loop": "outer", "iteration": 3},
        {"loop": "inner", "iteration": 0},
    ]


def test_what_is_too_long_says_so(
    api: Caller, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = api.new_run()
    for seq in range(1, 5):
        states.put_step(db, path, seq, "completed")
    api.post(f"{path}/pause")
    api.post(f"{path}/resume")
    for steps, events in ((4, 3), (3, 2), (1, 1)):
        monkeypatch.setattr(service, "MAX_STEPS", steps)
        monkeypatch.setattr(service, "MAX_AUDIT_EVENTS", events)
        found = timeline(api, path)
        assert len(found["steps"]) == steps
        assert found["hasMoreSteps"] == (steps < 4)
        assert [one["action"] for one in found["auditEvents"]] == [
            "run.created",
            "run.paused",
            "run.resumed",
        ][:events]
        assert found["hasMoreAuditEvents"] == (events < 3)


def test_big_outputs_are_fewer_steps(
    api: Caller, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = api.new_run()
    big = """json_build_object('text', repeat('x', 1000))"""
    for seq in range(1, 6):
        states.put_step(db, path, seq, "completed", output=big)
    for most, shown in ((0, 1), (1_020, 2), (3_000, 3), (1_000_000, 5)):
        monkeypatch.setattr(service, "MAX_BYTES", most)
        found = timeline(api, path)
        assert len(found["steps"]) == shown
        assert found["hasMoreSteps"] == (shown < 5)
        assert len(timeline(api, path, "compact")["steps"]) == 5


def test_it_takes_one_statement_behind_that_for_the_key(
    api: Caller, app: Any, db: Database
) -> None:
    path = api.new_run()
    states.bring(db, path, "running")
    engine = app.extensions["metronome"].db._engine
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    timeline(api, path)
    event.remove(engine, "before_cursor_execute", note)
    assert len(seen) == 1, seen  # that for the key goes past SQLAlchemy


def test_answers_are_what_the_document_says(api: Caller, db: Database) -> None:
    document = api.get("/openapi.json").json or {}
    path = api.new_run(input={"a": 1})
    with_event(db, path)
    states.bring(db, path, "completed")
    for answer, schema in (
        (api.get(f"{path}/timeline"), "TimelineAnswer"),
        (api.get(f"{path}/timeline?view=compact"), "TimelineAnswer"),
        (api.get(f"{path}/result"), "ResultAnswer"),
        (api.get("metronomes/audit-events"), "AuditList"),
    ):
        assert answer.status_code == 200
        whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
        jsonschema_rs.validate(whole, answer.json)
    schemas = document["components"]["schemas"]
    full = timeline(api, path)
    for dumped, schema in (
        (full, "Timeline"),
        (full["steps"][0], "TimelineStep"),
        (full["triggerEvent"], "TimelineTriggerEvent"),
        (full["auditEvents"][0], "Audit"),
        (data(api.get(f"{path}/result")), "Result"),
    ):
        assert dumped.keys() == schemas[schema]["properties"].keys()


@pytest.mark.parametrize("state", states.ENDED)
def test_an_ended_run_has_a_result(api: Caller, db: Database, state: str) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    run = data(api.get(path))
    answer = api.get(f"{path}/result")
    assert (answer.json or {})["object"] == "metronome.run.result"
    assert data(answer) == {
        "runId": run["id"],
        "status": state,
        "output": {"ok": True} if state == "completed" else None,
        "error": run["error"],
        "completedAt": run["completedAt"],
    }


@pytest.mark.parametrize("state", states.ACTIVE)
def test_a_run_that_goes_on_has_none(api: Caller, db: Database, state: str) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    body = refused(api.get(f"{path}/result"), 409, "run_not_ended")
    assert body["details"] == {"status": data(api.get(path))["status"]}


def test_nonsense_is_refused(api: Caller) -> None:
    path = api.new_run()
    for query, field in (("view=long", "view"), ("limit=3", "limit")):
        body = refused(api.get(f"{path}/timeline?{query}"), 422, "invalid")
        assert field in body["details"]


def with_event(db: Database, path: str) -> None:
    """Say that a delivery started the run of ``path``."""
    _, metronome_id, _, run_id = path.split("/")
    with db.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO trigger_events (id, organization_id, metronome_id, user_id, run_id,"
                " trigger_type, status, source_event_id, payload) VALUES ('evt_9', 'acme',"
                " :metronome_id, 'ada', :run_id, 'github', 'matched', 'd-1',"
                """ '{"n": 1.5, "text": "ü"}')"""
            ),
            {"metronome_id": metronome_id, "run_id": run_id},
        )
    states.change(db, path, "trigger_event_id = 'evt_9'")
