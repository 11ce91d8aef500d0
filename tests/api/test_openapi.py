from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import validate

from app.api import converters
from app.db import Database
from tests.api import states
from tests.api.conftest import Caller


@pytest.fixture
def document(nobody: Caller) -> dict[str, Any]:
    found: dict[str, Any] = nobody.get("/openapi.json").json or {}
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"
    ]


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    assert document["security"] == [{"apiKey": []}]
    for name, schema in document["components"]["schemas"].items():
        whole = {**schema, "components": document["components"]}
        jsonschema_rs.validator_for(whole)
        assert re.fullmatch("[A-Z][A-Za-z]+", name)


def test_a_validator_finds_nothing(document: dict[str, Any]) -> None:
    validate(document)


def test_answers_lead_on(document: dict[str, Any]) -> None:
    created = document["paths"]["/v1/metronomes/{metronomeId}/runs"]["post"]["responses"]["201"]
    link = created["links"]["cancelRun"]
    assert link["operationId"] == "cancelRun"
    assert link["parameters"] == {
        "metronomeId": "$response.body#/data/metronomeId",
        "runId": "$response.body#/data/id",
    }
    ids = {operation["operationId"] for _, _, operation in operations(document)}
    linked = {
        name
        for _, _, operation in operations(document)
        for response in operation["responses"].values()
        for name in response.get("links", {})
    }
    assert linked <= ids
    followed = {
        operation["operationId"]
        for _, path, operation in operations(document)
        if "{" in path and "{stepId}" not in path and "{slug}" not in path
    }
    assert linked >= followed


def test_every_route_is_documented(document: dict[str, Any], app: Any) -> None:
    routes = {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule not in ("/", "/openapi.json") and not rule.rule.startswith("/docs")
    }
    assert routes == {(method, path) for method, path, _ in operations(document)}


def test_what_is_no_workflow_is_not_taken_for_one(app: Any) -> None:
    rules = [rule.rule for rule in app.url_map.iter_rules()]
    names = {rule.removeprefix("/v1/metronomes/") for rule in rules if "/v1/metronomes/" in rule}
    assert {name for name in names if not re.search("[</]", name)} == set(converters.NAMES)
    assert "/v1/metronomes/<metronomeId>" not in rules


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    ids = set()
    for method, path, operation in operations(document):
        assert operation["summary"], path
        ids.add(operation["operationId"])
        codes = set(operation["responses"])
        public = path in ("/healthz", "/readyz")
        called_back, signed = "{stepId}" in path, "/github/" in path
        security = operation.get("security", document["security"])
        scheme = "callbackToken" if called_back else "webhookSignature" if signed else "apiKey"
        known_by: dict[str, list[str]] = {scheme: []}
        assert security == ([] if public else [known_by])
        if not public:
            assert {"401", "500", "503"} <= codes
        if scheme == "apiKey" and not public:
            assert "403" in codes
        if "{" in path and not called_back:
            assert "404" in codes
        if "requestBody" in operation:
            assert {"400", "413", "422"} <= codes
        assert ("requestBody" in operation) == (method in ("post", "patch"))
        for code, response in operation["responses"].items():
            if "$ref" in response:
                response = document["components"]["responses"][response["$ref"].split("/")[-1]]
            assert response["description"]
            bare = code == "304"
            assert bare or "schema" in response["content"]["application/json"]
            assert "X-Request-Id" in response["headers"]
    assert len(ids) == len(operations(document))


def test_the_cancel_headers_are_documented(document: dict[str, Any]) -> None:
    path = "/v1/metronomes/{metronomeId}/runs/{runId}/cancel"
    operation = document["paths"][path]["post"]
    assert operation["operationId"] == "cancelRun"
    assert not operation["requestBody"]["required"]
    names = {"Cancel-Outcome", "Cancel-In-Flight", "Cancel-In-Flight-More"}
    assert names <= set(operation["responses"]["200"]["headers"])


@pytest.mark.parametrize("state", [*states.ACTIVE, *states.ENDED])
def test_answers_are_what_the_document_says(
    api: Caller, db: Database, document: dict[str, Any], state: str
) -> None:
    path = api.new_run(input={"a": 1}, timeoutMs=1000, maxAttempts=2)
    states.bring(db, path, state)
    for answer, schema in (
        (api.get(path), "RunAnswer"),
        (api.get(f"{path}?view=compact"), "RunAnswer"),
        (api.get(path.rpartition("/")[0]), "RunList"),
        (api.get(f"{path}/steps"), "StepList"),
        (api.get(path.partition("/runs")[0]), "MetronomeAnswer"),
        (api.get("metronomes"), "MetronomeList"),
        (api.get("metronomes/met_1"), "Error"),
        (api.get(f"{path}/children"), "RunList"),
        *_versions(api),
        (api.get("approvals"), "ApprovalList"),
        (api.post(f"{path}/pause"), "RunAnswer"),
        (api.post(f"{path}/resume"), "Error" if state in states.ENDED else "RunAnswer"),
        (api.post(f"{path}/cancel"), "RunAnswer"),
    ):
        whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
        jsonschema_rs.validate(whole, answer.json)


def test_dumps_have_the_fields_of_the_schemas(
    api: Caller, db: Database, document: dict[str, Any]
) -> None:
    path = api.new_run()
    states.bring(db, path, "running")
    schemas = document["components"]["schemas"]
    metronome = path.partition("/runs")[0]
    for dumped, schema in (
        (api.get(path).json["data"], "Run"),  # type: ignore[index]
        (api.get(f"{path}/steps").json["data"][0], "Step"),  # type: ignore[index]
        (api.get(metronome).json["data"], "Metronome"),  # type: ignore[index]
        (_approval(api, db), "Approval"),
        *(
            (answer.json["data"][0], schema.removesuffix("List"))
            for answer, schema in _versions(api)
            if schema.endswith("List")
        ),
        (api.get(f"{metronome}/owner-candidates").json["data"][0], "Candidate"),  # type: ignore[index]
    ):
        assert dumped.keys() == schemas[schema]["properties"].keys()


def _versions(api: Caller) -> list[tuple[Any, str]]:
    """Answers about versions, and the schemas that they have."""
    metronome = api.new_metronome()
    version = (api.post(f"{metronome}/versions").json or {})["data"]["id"]
    path = f"{metronome}/versions/{version}"
    return [
        (api.post(f"{path}/publish"), "MetronomeAnswer"),
        (api.post(f"{metronome}/unpublish"), "MetronomeAnswer"),
        (api.post(f"{metronome}/publish"), "MetronomeAnswer"),
        (api.patch(path, {"description": "x"}), "Error"),
        (api.get(path), "VersionAnswer"),
        (api.get(f"{metronome}/versions"), "VersionList"),
        (api.get(f"{path}/diff?againstVersionId={version}"), "DiffAnswer"),
        (api.get(f"{metronome}/deployments"), "DeploymentList"),
    ]


def _approval(api: Caller, db: Database) -> dict[str, Any]:
    states.bring(db, api.new_run(), "waiting_approval")
    (found,) = (api.get("approvals").json or {})["data"]
    return dict(found)


def test_the_examples_are_accepted(api: Caller, document: dict[str, Any]) -> None:
    created = document["paths"]["/v1/metronomes"]["post"]["requestBody"]["content"]
    metronome = api.post("metronomes", created["application/json"]["example"])
    assert metronome.status_code == 201
    path = f"metronomes/{metronome.json['data']['id']}/runs"  # type: ignore[index]
    run = document["paths"]["/v1/metronomes/{metronomeId}/runs"]["post"]["requestBody"]["content"]
    assert api.post(path, run["application/json"]["example"]).status_code == 201


def test_the_docs_need_nothing_from_elsewhere(nobody: Caller) -> None:
    assert nobody.get("/docs").status_code == 302
    page = nobody.get("/docs/").get_data(as_text=True)
    linked = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page)
    assert linked
    for link in linked:
        assert link.startswith("/docs/")
        assert nobody.get(link).status_code == 200
    assert '"url": "/openapi.json"' in page
    home = nobody.get("/").json or {}
    assert nobody.get(home["docs"]).status_code == nobody.get(home["openapi"]).status_code == 200
