"""The metronome node: runs another workflow, and waits for its end without holding a thread.

Config, with bindings: ``workflowId``, or else ``workflowName``; ``input`` (an object) or
``inputJson`` (a text that holds one). Output: ``{runId, status, output}``, where ``output`` is that
of the nested run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.expressions import render
from app.domain.lifecycle import COMPLETED, FAILED
from app.domain.outcomes import Done, Failed, Outcome, Spawn
from app.domain.values import describe
from app.nodes.base import Context, News, NodeKind, Problem
from app.nodes.bindings import is_absent, json_problems, render_json, text_problems
from app.nodes.fields import (
    BINDINGS,
    Field,
    choice,
    json_or_text,
    json_text,
    one_of_them,
    output,
    text_field,
)

OPERATION = "run_workflow"
_NAMES = ("workflowId", "workflowName")


class MetronomeRun(NodeKind):
    """Starts a nested run; its end is this node's."""

    kind = "metronome"
    usual_subtypes = (OPERATION,)
    effect = "runs another workflow, with all that it does"
    title = "Run a workflow"
    told = "Runs another workflow of the organization, and waits for its end without a thread."
    fields = (
        choice("operation", "The only one.", (OPERATION,), default=OPERATION),
        text_field("workflowId", "Which workflow. It counts where both are given."),
        text_field("workflowName", "Instead of workflowId: a name that only one workflow has."),
        Field(
            "input",
            {
                "anyOf": [
                    {"type": ["object", "null"], **BINDINGS},
                    {"type": "string", "format": "bindings"},
                ],
                "description": "The input of the nested run: an object; {} where it is absent.",
            },
        ),
        json_text("inputJson", "Instead of input: a text that holds an object as JSON."),
    )
    rules = (one_of_them(*_NAMES), json_or_text("input"))
    outputs = (
        output("runId", "The nested run.", type="string"),
        output("status", "How it ended.", type="string"),
        output("output", "What it answered.", type=["object", "null"]),
    )
    interruptible = True

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[Problem]:
        """Types and bindings; whether there is such a workflow is known when the node runs."""
        yield from text_problems(config, *_NAMES)
        yield from json_problems(config, "input")
        given = config.get("input")
        if not isinstance(given, (dict, str, type(None))):
            yield Problem("config.input", "input must be an object, or a binding that gives one.")
        operation = config.get("operation")
        if not is_absent(operation) and operation != OPERATION:
            yield Problem("config.operation", f"operation must be {OPERATION}.")

    def missing(self, config: Mapping[str, Any]) -> Iterable[Problem]:
        """The workflow."""
        if all(is_absent(config.get(name)) for name in _NAMES):
            message = "A metronome node needs workflowId or workflowName."
            yield Problem("config.workflowId", message)

    def bind(self, config: Mapping[str, Any], scope: Mapping[str, Any]) -> dict[str, Any]:
        """The workflow that is meant, and the nested run's ``input``."""
        named = {name: config[name] for name in _NAMES if not is_absent(config.get(name))}
        return {**render(named, scope), "input": render_json(config, "input", scope)}

    def run(self, context: Context) -> Outcome:
        """Which workflow is to run, with which input."""
        named = [context.input.get(name) for name in _NAMES]
        if not any(named) or not all(isinstance(name, (str, type(None))) for name in named):
            message = "The bindings of workflowId and workflowName must give a text."
            return Failed(message, retryable=False)
        given = context.input.get("input")
        if not isinstance(given, (dict, type(None))):
            message = f"The input of a nested run must be an object, and is {describe(given)}."
            return Failed(message, retryable=False)
        return Spawn(named[0] or None, None if named[0] else named[1], given or {})

    def resume(self, context: Context, news: News) -> Outcome:
        """How the nested run has ended."""
        result = news.result or {"status": "deleted"}
        run_id, status = result.get("runId") or news.output.get("runId"), result.get("status")
        output = {"runId": run_id, "status": status, "output": result.get("output")}
        if status == COMPLETED:
            return Done({**output, "output": result.get("output") or {}})
        if status == FAILED:
            error = result.get("error") or "it gave no reason"
            return Failed(f"The nested run {run_id} failed: {error}", output=output)
        return Failed(f"The nested run {run_id} was {status}.", retryable=False, output=output)
