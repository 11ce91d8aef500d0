"""Previews of tests, in answers."""

from __future__ import annotations

from typing import Any

from app.api.dump.validation import issue
from app.domain.fixtures import StandIn
from app.domain.lifecycle import SKIPPED
from app.domain.slices import Missing
from app.services.test_runs import Preview


def preview(metronome_id: str, preview: Preview) -> dict[str, Any]:
    """What a test would run."""
    part = preview.part
    return {
        "valid": preview.valid,
        "issues": [issue(one) for one in preview.issues],
        "metronomeId": metronome_id,
        "versionId": preview.version_id,
        "triggerType": preview.run.trigger_type,
        "input": preview.run.input,
        "nodes": [
            {"nodeId": node.id, "kind": node.kind, "label": node.label}
            for node in (part.nodes if part else ())
        ],
        "fixtures": [_stand_in(one) for one in (part.stand_ins if part else ())],
        "missingFixtures": [_missing(one) for one in (part.missing if part else ())],
        "sideEffects": [
            {"nodeId": node.id, "kind": node.kind, "effect": effect}
            for node, effect in preview.effects()
        ],
        "definition": part.definition if part else None,
    }


def _stand_in(one: StandIn) -> dict[str, Any]:
    return {
        "nodeId": one.node.id,
        "kind": one.node.kind,
        "output": one.output,
        "branch": one.branch,
        "error": one.error,
        SKIPPED: one.skipped,
        "given": one.given,
    }


def _missing(one: Missing) -> dict[str, Any]:
    return {
        "field": one.field,
        "nodeId": one.node_id,
        "reads": list(one.reads),
        "message": one.message,
    }
