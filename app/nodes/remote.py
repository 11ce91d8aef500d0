"""The platform's kinds, which remote services do: action, imagine, firecrawl, database, ticket.

Their config is what the SDK's node classes write; what it means is the connector's business. All of
it may hold bindings, but for the templates of records, which the connector fills in. Three fields
hold expressions without braces: ``inputBinding`` (what the node works on; the run's input where it
is absent), ``recordsBinding`` and ``inputBindings`` (an object of expressions by name, or a list of
them). Their values are sent as ``input`` and ``bindings``. See docs/connectors.rst.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from app.domain.connectors import chosen, replay_safe
from app.domain.expressions import render
from app.domain.outcomes import Outcome
from app.nodes import dispatch
from app.nodes.base import Context, News, NodeKind, NodeLimits, Problem, Unserved
from app.nodes.bindings import (
    binding_problems,
    expression_of,
    expression_problems,
    is_absent,
    json_problems,
    render_json,
)
from app.nodes.dispatch import Work
from app.nodes.remote_fields import (
    ACTION,
    ALL,
    DATABASE,
    FIRECRAWL,
    IMAGINE,
    OTHER,
    OURS,
    TEMPLATES,
    TICKET,
)

_EXPRESSIONS = ("inputBinding", "recordsBinding", "inputBindings")
_JSON = "Json"
_RECORDS = "records"  # what the value of recordsBinding is called among the bindings


class Remote(NodeKind):
    """Dispatches the node to its connector; a request ends at once on the stop signal."""

    interruptible = True
    effect = "has a remote service work"
    other = OTHER
    replay_safe_where = "every connector that may serve the kind is set to replaySafe"

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[Problem]:
        """The bindings must parse; everything else is checked by the connector."""
        for name in ("inputBinding", "recordsBinding"):
            yield from expression_problems(config.get(name), name)
        yield from _several_problems(config.get("inputBindings"))
        for name, value in config.items():
            if name in (*OURS, *_EXPRESSIONS, *TEMPLATES):
                continue
            if name.endswith(_JSON):
                yield from json_problems({name: value}, name.removesuffix(_JSON))
            else:
                yield from binding_problems(value, f"config.{name}")

    def replay_safe(self, config: Mapping[str, Any], limits: NodeLimits) -> bool:
        """What the settings say of the connectors that may serve the node."""
        return replay_safe(limits.connectors, self.kind)

    def connector(
        self, config: Mapping[str, Any], limits: NodeLimits, subtype: str | None = None
    ) -> str | None:
        """The connector of the kind and subtype, else of the kind."""
        found = chosen(limits.connectors, self.kind, self._subtype(subtype))
        return None if found is None else found.name

    def unserved(
        self, config: Mapping[str, Any], limits: NodeLimits, subtype: str | None
    ) -> Unserved | None:
        """The connector, where there is none."""
        if self.connector(config, limits, subtype) is not None:
            return None
        return Unserved(dispatch.missing(self.kind, self._subtype(subtype)).error)

    def bind(self, config: Mapping[str, Any], scope: Mapping[str, Any]) -> dict[str, Any]:
        """``{config, input?, bindings?}``, as they are sent. Raises ExpressionError."""
        sent = [name for name in config if name not in (*OURS, *_EXPRESSIONS)]
        bound: dict[str, Any] = {
            "config": {
                name: _rendered(config, name, scope) for name in sent if config[name] is not None
            }
        }
        if config.get("inputBinding"):
            bound["input"] = expression_of(config["inputBinding"]).evaluate(scope)
        named = dict(_named(config))
        if named:
            bound["bindings"] = {
                name: expression_of(source).evaluate(scope) for name, source in named.items()
            }
        return bound

    def run(self, context: Context) -> Outcome:
        """What the connector answers."""
        subtype = self._subtype(context.node_subtype)
        connector = chosen(context.limits.connectors, self.kind, subtype)
        if connector is None:
            return dispatch.missing(self.kind, subtype)
        given = context.input
        work = Work(
            kind=self.kind,
            subtype=subtype,
            config=given.get("config") or {},
            input=given["input"] if "input" in given else dispatch.run_input(context.scope),
            bindings=given.get("bindings") or {},
        )
        return dispatch.send(context, connector, work)

    def resume(self, context: Context, news: News) -> Outcome:
        """What the connector called back."""
        return dispatch.resume(self.kind, news)

    def _subtype(self, given: str | None) -> str | None:
        """That of the node, or the first that there is."""
        return given or next(iter(self.subtypes), None)


class Action(Remote):
    """Has an agent do something: the subtype start_thread."""

    kind = "action"
    title = "Action"
    told = "Has an agent do something, in a thread."
    fields = (*ACTION, *ALL)
    subtypes = ("start_thread",)


class Imagine(Remote):
    """Has images or videos made."""

    kind = "imagine"
    title = "Imagine"
    told = "Has images or videos made."
    fields = (*IMAGINE, *ALL)


class Firecrawl(Remote):
    """Searches the web, reads pages and documents."""

    kind = "firecrawl"
    title = "Firecrawl"
    told = "Searches the web, reads pages and documents."
    fields = (*FIRECRAWL, *ALL)


class DatabaseDocument(Remote):
    """Inserts, changes or deletes a document of the platform's databases."""

    kind = "database"
    title = "Database"
    told = "Inserts, changes or deletes a document."
    fields = (*DATABASE, *ALL)


class Ticket(Remote):
    """Creates or changes a ticket of the platform."""

    kind = "ticket"
    title = "Ticket"
    told = "Creates or changes a ticket, or comments on it."
    fields = (*TICKET, *ALL)


def _rendered(config: Mapping[str, Any], name: str, scope: Mapping[str, Any]) -> Any:
    """A field with its bindings filled in; a text that holds JSON (``documentJson``) stays one."""
    value = config[name]
    if name in TEMPLATES:
        return value
    if name.endswith(_JSON) and isinstance(value, str):
        return orjson.dumps(render_json(config, name.removesuffix(_JSON), scope)).decode()
    return render(value, scope)


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The expressions of ``recordsBinding`` and ``inputBindings``, by the names of their values."""
    if config.get("recordsBinding"):
        yield _RECORDS, config["recordsBinding"]
    several = config.get("inputBindings")
    if isinstance(several, dict):
        yield from several.items()
    elif isinstance(several, list):
        yield from ((source, source) for source in several)


def _several_problems(several: Any) -> Iterator[Problem]:
    """What is wrong with ``inputBindings``."""
    if isinstance(several, dict):
        for name, source in several.items():
            yield from _source_problems(source, f"inputBindings.{name}")
    elif isinstance(several, list):
        for index, source in enumerate(several):
            yield from _source_problems(source, f"inputBindings.{index}")
    elif not is_absent(several):
        fault = "inputBindings must be an object of expressions, or a list of them."
        yield Problem("config.inputBindings", fault)


def _source_problems(source: Any, name: str) -> Iterator[Problem]:
    if is_absent(source):
        yield Problem(f"config.{name}", f"{name} must be a text: an expression.")
    yield from expression_problems(source, name)
