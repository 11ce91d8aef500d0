"""Work that is done elsewhere: a node is sent to its connector, which answers or calls back.

200, 201 and 204 end the node with the answer's JSON object as its output. 202 means that the remote
side works on: the step is parked until it calls back. 4xx fails the node for good (but for 408, 425
and 429); any other answer, or none, fails it so that its ``retry`` applies.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from app.clock import iso
from app.domain.connectors import VARIABLE, Connector
from app.domain.errors import ValueRefused
from app.domain.jsonvalue import check_json, clean_text
from app.domain.lifecycle import COMPLETED
from app.domain.outcomes import AwaitCallback, Done, Failed, Interrupted, Outcome
from app.nodes import signed
from app.nodes.base import Context, News
from app.nodes.message import TooBig
from app.nodes.signed import Answer
from app.nodes.wire import Call, Cut

EVENT = "node.dispatched"
_DONE = frozenset({200, 201, 204})
_WORKING = 202
_BUSY = frozenset({408, 425, 429})  # refusals that pass
_SHOWN = 500  # characters of an answer in an error
_KEPT = 4_000  # characters of a failed answer in the trace


@dataclass(frozen=True, slots=True)
class Work:
    """What a connector is to do: the node's rendered config, and the data that it works on."""

    kind: str
    subtype: str | None
    config: Mapping[str, Any]
    input: Any
    bindings: Mapping[str, Any]


def missing(kind: str, subtype: str | None = None) -> Failed:
    """The failure of a node whose kind has no connector here."""
    what = f"Nodes of the kind '{kind}'"
    if subtype and kind != subtype:
        what += f" (such as '{kind}.{subtype[:100]}')"
    return Failed(
        f"{what} need a connector: a table [connectors.{kind}] in the file that the setting "
        f"{VARIABLE} of the executors names.",
        retryable=False,
    )


def run_input(scope: Mapping[str, Any]) -> Any:
    """What a node works on that names nothing else: the run's input."""
    return (scope.get("trigger") or {}).get("input") or {}


def send(context: Context, connector: Connector, work: Work) -> Outcome:
    """Dispatch the node; its outcome, or AwaitCallback where the connector works on."""
    deadline = _deadline(context, connector)
    body = orjson.dumps(_request(context, work, deadline))
    began = time.monotonic()
    with Call(context.stop, connector.timeout_ms / 1000) as call:
        try:
            answer = signed.post(
                call,
                connector,
                message_id=context.step_id,
                moment=context.started_at,
                body=body,
                most=context.limits.http_max_bytes,
                headers={"idempotency-key": context.idempotency_key},
            )
        except Cut:
            return _cut(connector, call)
        except TooBig:
            limit = context.limits.http_max_bytes
            fault = f"The answer of the connector {connector.name} is bigger than {limit:,} bytes."
            return Failed(fault, retryable=False)
        except signed.Unanswered as error:
            return Failed(f"The connector {connector.name} did not answer: {error}.")
    if answer.status == _WORKING:
        now = context.started_at + timedelta(seconds=time.monotonic() - began)
        return _working(context, connector, answer, deadline, now)
    if answer.status in _DONE:
        return _done(context, connector, answer)
    return _refused(connector, answer)


def resume(kind: str, news: News) -> Outcome:
    """What has become of dispatched work: what was called back, or that nothing was in time."""
    if news.result is not None:
        if news.result["status"] == COMPLETED:
            return Done(news.result.get("output") or {})
        retryable = news.result.get("retryable", True) is not False
        return Failed(str(news.result.get("error", "")), retryable=retryable)
    waiting = news.output.get("callback") or {}
    silence, whole = waiting.get("heartbeatMs"), waiting.get("timeoutMs")
    if silence is not None and (whole is None or news.waited_ms < whole):
        return Failed(f"The remote side of this {kind} node has been silent for {silence} ms.")
    waited = news.waited_ms if whole is None else whole
    return Failed(f"The remote side of this {kind} node did not call back within {waited} ms.")


def _deadline(context: Context, connector: Connector) -> datetime:
    """When it is too late to call back."""
    own = context.config.get("timeoutMs")
    most = connector.callback_timeout_ms
    return context.started_at + timedelta(milliseconds=most if own is None else min(most, own))


def _request(context: Context, work: Work, deadline: datetime) -> dict[str, Any]:
    request: dict[str, Any] = {
        "type": EVENT,
        "runId": context.run_id,
        "metronomeId": context.metronome_id,
        "organizationId": context.organization_id,
        "stepId": context.step_id,
        "nodeId": context.node_id,
        "nodeKind": work.kind,
        "subtype": work.subtype,
        "label": context.node_label,
        "attempt": context.attempt,
        "idempotencyKey": context.idempotency_key,
        "config": work.config,
        "input": work.input,
        "bindings": work.bindings,
    }
    if context.callback_token is not None:
        run = f"/v1/metronomes/{context.metronome_id}/runs/{context.run_id}"
        request["callback"] = {
            "url": f"{context.limits.public_url}{run}/steps/{context.step_id}",
            "token": context.callback_token,
            "deadline": iso(deadline),
        }
    return request


def _cut(connector: Connector, call: Call) -> Outcome:
    if call.cut_by == "timeout":
        return Failed(
            f"The connector {connector.name} did not answer within {connector.timeout_ms} ms."
        )
    seen = "while it was under way" if call.sent else "before it was sent"
    return Interrupted(f"The request to the connector {connector.name} was cut off {seen}.")


def _working(
    context: Context, connector: Connector, answer: Answer, deadline: datetime, now: datetime
) -> Outcome:
    if context.callback_token is None:
        return Failed(
            f"The connector {connector.name} would call back, but was given no way to.",
            retryable=False,
        )
    accepted, fault = _object(context, answer)
    output: dict[str, Any] = {} if fault or not accepted else {"accepted": accepted}
    # What a heartbeat and ``resume`` have to know; the step shows it while it waits.
    waiting = output["callback"] = {
        "deadline": iso(deadline),
        "timeoutMs": round((deadline - context.started_at).total_seconds() * 1000),
    }
    until = deadline
    if connector.heartbeat_ms is not None:
        waiting["heartbeatMs"] = connector.heartbeat_ms
        until = min(deadline, now + timedelta(milliseconds=connector.heartbeat_ms))
    return AwaitCallback(until, output)


def _done(context: Context, connector: Connector, answer: Answer) -> Outcome:
    output, fault = _object(context, answer)
    if fault:
        # The work may have been done, so that doing it again is no cure.
        return Failed(f"The answer of the connector {connector.name} {fault}.", retryable=False)
    return Done(output)


def _object(context: Context, answer: Answer) -> tuple[dict[str, Any], str | None]:
    """The JSON object of an answer, {} where it is empty, and what is wrong with it, or None."""
    if not answer.body.strip():
        return {}, None
    try:
        found = orjson.loads(answer.body)
    except ValueError:
        return {}, "is no JSON"
    if not isinstance(found, dict):
        return {}, "is no JSON object"
    try:
        check_json(found, "output", max_bytes=context.limits.output_max_bytes)
    except ValueRefused as error:
        return {}, f"can't be kept: {error.message}"
    return found, None


def _refused(connector: Connector, answer: Answer) -> Outcome:
    text = clean_text(answer.body.decode("utf-8", "replace"), _KEPT)
    output = {"status": answer.status, "body": text}
    fault = f"The connector {connector.name} answered HTTP {answer.status}"
    if 300 <= answer.status < 400:
        return Failed(f"{fault}: redirects are not followed.", retryable=False, output=output)
    if said := _said(answer):
        fault = f"{fault}: {said}"
    final = 200 <= answer.status < 500 and answer.status not in _BUSY
    return Failed(fault, retryable=not final, output=output)


def _said(answer: Answer) -> str:
    """What a refusal says of itself, in our API's own shape of an error or a similar one."""
    try:
        found = orjson.loads(answer.body)
    except ValueError:
        return ""
    if isinstance(found, dict):
        for name in ("message", "error", "detail"):
            if isinstance(found.get(name), str):
                return clean_text(found[name], _SHOWN)
    return ""
