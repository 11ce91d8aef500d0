"""The approval: a person decides how the run goes on. It waits without holding a thread.

Config, all of it optional and with bindings but for ``onDeadline``: ``title`` (the node's label
stands in), ``message``, ``deadlineSeconds`` (counted from the step's start) or ``deadline`` (a time
in ISO 8601), and ``onDeadline``: ``fail`` (the default), ``approve`` or ``reject``.

Edges with the sourceHandle ``approved``, or without any, are taken after an approval, those of
``rejected`` after a rejection. Where there are none of the latter, a rejection fails the node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Literal

from app.clock import iso
from app.domain.outcomes import AwaitApproval, Done, Failed, Outcome
from app.domain.values import text
from app.nodes.base import Branch, Context, News, NodeKind, Problem
from app.nodes.bindings import is_absent, text_problems
from app.nodes.fields import choice, given, moment, not_both, output, seconds, text_field
from app.nodes.moments import MAX_SECONDS, moment_of, moment_problems

ON_DEADLINE = ("fail", "approve", "reject")
_HANDLES = frozenset({"", "approved", "rejected", "error"})


class Approval(NodeKind):
    """Asks, and goes on by the answer or at the deadline."""

    kind = "approval"
    title = "Approval"
    told = "A person decides how the run goes on. It waits without holding a thread."
    fields = (
        text_field("title", "What is asked; the node's label where it is absent."),
        text_field("message", "What the person should know."),
        seconds("deadlineSeconds", "Until when, counted from the start of the step.", MAX_SECONDS),
        moment("deadline", "Instead of deadlineSeconds: a time. UTC where it names no zone."),
        choice("onDeadline", "What happens then.", ON_DEADLINE, default="fail"),
    )
    rules = (not_both(given("deadlineSeconds"), given("deadline")),)
    outputs = (
        output("title", "What was asked.", type="string"),
        output("message", "What the person was told.", type=["string", "null"]),
        output("deadline", "Until when they had time.", type="string"),
        output("decision", "approved or rejected.", enum=["approved", "rejected"]),
        output("comment", "What they said.", type=["string", "null"]),
        output("decidedBy", "The user; null at the deadline.", type=["string", "null"]),
        output("decidedAt", "When.", type="string"),
        output("byDeadline", "true where the deadline decided.", type="boolean"),
    )
    handles = {  # noqa: RUF012 - never changed
        "approved": "It was approved; edges without a handle are taken then, too.",
        "rejected": "It was rejected. Where no edge leaves here, a rejection fails the node.",
        **NodeKind.handles,
    }
    bound = ("title", "message", "deadlineSeconds", "deadline")
    interruptible = True

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[Problem]:
        """Types, a deadline that can be read, and edges that name a decision."""
        yield from text_problems(config, "title", "message")
        yield from moment_problems(config, "deadlineSeconds", "deadline")
        wanted = config.get("onDeadline")
        if not is_absent(wanted) and wanted not in ON_DEADLINE:
            message = f"onDeadline must be one of {', '.join(ON_DEADLINE)}."
            yield Problem("config.onDeadline", message)
        for handle in sorted(handles - _HANDLES):
            message = f"The sourceHandle '{handle[:128]}' must be approved or rejected."
            yield Problem(f"handles.{handle}", message)

    def branches(self, config: Mapping[str, Any]) -> Iterable[Branch]:
        """The approval; a rejection may fail the node."""
        yield Branch("approved", frozenset({"", "approved"}), expected=False)

    def run(self, context: Context) -> Outcome:
        """What is asked, and until when."""
        title, message = context.input.get("title"), context.input.get("message")
        try:
            until = moment_of(context.input, "deadlineSeconds", "deadline", context.started_at)
        except ValueError as error:
            return Failed(str(error), retryable=False)
        asked: dict[str, Any] = {
            "title": context.node_label or context.node_id if is_absent(title) else text(title),
            "message": None if is_absent(message) else text(message),
        }
        if until is not None:
            asked["deadline"] = iso(until)
        return AwaitApproval(until, asked)

    def resume(self, context: Context, news: News) -> Outcome:
        """What was decided, or what the deadline means."""
        if news.result is None:
            return self._at_deadline(context, news)
        told = {name: news.result.get(name) for name in ("comment", "userId", "decidedAt")}
        approved = news.result.get("decision") == "approved"
        output = {
            **news.output,
            "decision": "approved" if approved else "rejected",
            "comment": told["comment"],
            "decidedBy": told["userId"],
            "decidedAt": told["decidedAt"],
        }
        comment = f": {told['comment']}" if told["comment"] else ", without a comment"
        return _decided(context, output, f"Rejected by {told['userId']}{comment}")

    def _at_deadline(self, context: Context, news: News) -> Outcome:
        wanted = context.config.get("onDeadline") or "fail"
        output = {**news.output, "byDeadline": True}
        if wanted == "fail":
            error = f"Nobody decided before the deadline, {news.output.get('deadline')}."
            return Failed(error, retryable=False, output=output)
        output |= {
            "decision": "approved" if wanted == "approve" else "rejected",
            "comment": None,
            "decidedBy": None,
            "decidedAt": iso(context.started_at + timedelta(milliseconds=news.waited_ms)),
        }
        return _decided(context, output, "Rejected by the deadline: nobody decided in time.")


def _decided(context: Context, output: dict[str, Any], rejection: str) -> Outcome:
    branch: Literal["approved", "rejected"] = output["decision"]
    if branch == "rejected" and "rejected" not in context.handles:
        return Failed(rejection, retryable=False, output=output)
    return Done(output, branch=branch)
