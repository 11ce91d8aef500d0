"""OpenAPI links: which operations go on with what an answer holds.

They are put into the finished document, by the schema of an answer: whoever answers a run can be
followed by everything that concerns that run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_DATA = "$response.body#/data"

# The parameters that an answer fills, by the name of its schema. Every operation whose path needs
# these and no others can follow.
_FILLS: Mapping[str, Mapping[str, str]] = {
    "MetronomeAnswer": {"metronomeId": f"{_DATA}/id"},
    "VersionAnswer": {"metronomeId": f"{_DATA}/metronomeId", "versionId": f"{_DATA}/id"},
    "RunAnswer": {"metronomeId": f"{_DATA}/metronomeId", "runId": f"{_DATA}/id"},
}
_REF = "#/components/schemas/"


def add(document: dict[str, Any]) -> dict[str, Any]:
    """``document``, an OpenAPI document as JSON, with links in the answers of its operations."""
    followers = _followers(document)
    for methods in document["paths"].values():
        for operation in methods.values():
            if not isinstance(operation, dict):
                continue
            for status, response in operation["responses"].items():
                fills = _FILLS.get(_schema(response), {})
                if status.startswith("2") and fills:
                    response["links"] = {
                        follower: {"operationId": follower, "parameters": dict(fills)}
                        for follower in followers.get(frozenset(fills), [])
                        if follower != operation["operationId"]
                    }
    return document


def _followers(document: Mapping[str, Any]) -> dict[frozenset[str], list[str]]:
    """The ids of the operations by the parameters that their paths need."""
    found: dict[frozenset[str], list[str]] = {}
    for path, methods in document["paths"].items():
        needs = frozenset(re.findall(r"{(\w+)}", path))
        for operation in methods.values():
            if isinstance(operation, dict) and needs:
                found.setdefault(needs, []).append(operation["operationId"])
    return found


def _schema(response: Mapping[str, Any]) -> str:
    content = response.get("content", {}).get("application/json", {})
    return str(content.get("schema", {}).get("$ref", "")).removeprefix(_REF)
