"""Whether a definition can be published: every fault that can be seen in it alone.

That is its shape, and what a draft may lack. Errors keep it from being published: no trigger, a
branch that leads nowhere, a config that is not complete, an expression that names what is not there
or can't be there yet. Warnings don't: a run may still do what was meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol

from app.domain import trigger_rows
from app.domain.forms import has_data
from app.domain.graph import Graph, Node, parse
from app.domain.issues import MAX_ISSUES, Issue
from app.domain.names import Names
from app.domain.shape import check_shape
from app.domain.shape_nodes import KindLike, ProblemLike
from app.domain.sources import Schema, expressions

Level = Literal["error", "warning"]

# Faults of a node, or of an edge's handle, that leave the graph as it is.
_OF_NODES = frozenset(
    {
        "invalid_config",
        "invalid_output_key",
        "duplicate_output_key",
        "unknown_subtype",
        "unknown_branch",
    }
)


class BranchLike(Protocol):
    """One way in which a node may go on."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def handles(self) -> frozenset[str]:
        """The handles of the edges that it takes; ``""`` is that of edges without one."""

    @property
    def expected(self) -> bool:
        """Whether an edge is surely missing where there is none."""


class PublishKind(KindLike, Protocol):
    """What a node kind offers for the check."""

    @property
    def usual_subtypes(self) -> tuple[str, ...]:
        """The subtypes that mean something, where any text is one."""

    @property
    def config_schema(self) -> Schema:
        """What its config may hold, as JSON Schema: where expressions are."""

    @property
    def output_names(self) -> frozenset[str] | None:
        """The fields of its output; None where it may have any."""

    def missing(self, config: Mapping[str, Any]) -> Iterable[ProblemLike]:
        """What a sound config lacks before the node can run."""

    def publish_problems(
        self, config: Mapping[str, Any], subtype: str | None
    ) -> Iterable[ProblemLike]:
        """What else keeps the node from being published."""

    def branches(self, config: Mapping[str, Any]) -> Iterable[BranchLike]:
        """The ways in which a node with a complete config may go on; () where there is one."""


class Sound:
    """A definition whose graph is sound; nodes with a fault in their config are ``faulty``."""

    def __init__(self, definition: Mapping[str, Any], faulty: frozenset[str]) -> None:
        self.definition = definition
        self.graph = parse(definition)
        self.faulty = faulty

    def nodes(self) -> Iterator[Node]:
        """The nodes whose config has no fault, in definition order."""
        return (node for node in self.graph.nodes.values() if node.id not in self.faulty)

    def issue(
        self, level: Level, code: str, message: str, node: Node | None = None, below: str = ""
    ) -> Issue:
        """A fault of a node, or of the field ``below`` it; of the whole without a node."""
        if node is None:
            return Issue(level, code, message, "definition")
        field = f"definition.nodes.{node.index}"
        if below:
            raw = self.definition["nodes"][node.index]
            field += f".data.{below}" if has_data(raw) else f".{below}"
        return Issue(level, code, message, field, node.id)


def read(definition: object, kinds: Mapping[str, PublishKind]) -> tuple[list[Issue], Sound | None]:
    """The faults of a definition's shape, and its graph; None where that is not sound."""
    issues = check_shape(definition, kinds)
    if not isinstance(definition, dict) or any(issue.code not in _OF_NODES for issue in issues):
        return issues, None
    faulty = frozenset(issue.node_id for issue in issues if issue.node_id is not None)
    if any(issue.node_id is None for issue in issues) or len(issues) >= MAX_ISSUES:
        return issues, None
    return issues, Sound(definition, faulty)


def publish_faults(sound: Sound, kinds: Mapping[str, PublishKind]) -> Iterator[Issue]:
    """Every fault of a sound definition, but for those of its shape."""
    yield from _triggers(sound, kinds)
    for node in sound.nodes():
        yield from _config(sound, node, kinds[node.kind])
        yield from _branches(sound, node, kinds[node.kind])
    yield from _ways(sound)
    yield from _expressions(sound, kinds)


def in_order(issues: Iterable[Issue]) -> list[Issue]:
    """At most 100 issues, errors first; nothing more is looked for once there are 100 errors."""
    errors: list[Issue] = []
    warnings: list[Issue] = []
    for issue in issues:
        found = errors if issue.level == "error" else warnings
        if len(found) < MAX_ISSUES:
            found.append(issue)
        if len(errors) == MAX_ISSUES:
            break
    return [*errors, *warnings][:MAX_ISSUES]


def _triggers(sound: Sound, kinds: Mapping[str, PublishKind]) -> Iterator[Issue]:
    triggers = [node for node in sound.graph.nodes.values() if node.kind == "trigger"]
    if not triggers:
        yield sound.issue("error", "no_trigger", "Nothing starts the workflow: add a trigger.")
    for node in triggers:
        kind = trigger_rows.type_of(node)
        usual = kinds["trigger"].usual_subtypes
        if kind not in usual:
            message = (
                f"No events of the type '{kind[:40]}' come here; there are {', '.join(usual)}."
            )
            yield sound.issue("warning", "unknown_trigger_type", message, node, "subtype")
        named = node.config.get("triggerType")
        if named not in (None, "", kind):
            message = f"triggerType differs from the node's subtype, which is '{kind[:40]}'."
            yield sound.issue(
                "warning", "trigger_type_differs", message, node, "config.triggerType"
            )
        if node.id not in sound.faulty:
            for problem in kinds["trigger"].publish_problems(node.config, kind):
                yield sound.issue("error", "invalid_config", problem.message, node, problem.field)
    for slug in trigger_rows.slug_problems(sound.definition):
        node = sound.graph.nodes[slug.node_id]
        yield sound.issue("error", "invalid_slug", slug.message, node, slug.field)


def _config(sound: Sound, node: Node, kind: PublishKind) -> Iterator[Issue]:
    for problem in kind.missing(node.config):
        yield sound.issue("error", "incomplete_config", problem.message, node, problem.field)
    if node.kind == "loop" and not sound.graph.body(node.id).nodes:
        message = (
            "Nothing is inside of the loop: give the nodes that it repeats its id as parentId."
        )
        yield sound.issue("warning", "empty_loop", message, node)


def _branches(sound: Sound, node: Node, kind: PublishKind) -> Iterator[Issue]:
    if any(True for _ in kind.missing(node.config)):
        return
    there = {edge.source_handle or "" for edge in sound.graph.outgoing[node.id]}
    for branch in kind.branches(node.config):
        if not branch.handles & there:
            level: Level = "error" if branch.expected else "warning"
            message = f"The branch '{branch.name[:128]}' leads nowhere: no edge takes it."
            yield sound.issue(level, "branch_leads_nowhere", message, node)


def _ways(sound: Sound) -> Iterator[Issue]:
    """What can't be reached from a trigger."""
    top = sound.graph.body(None)
    triggers = [node for node in top.nodes.values() if node.kind == "trigger"]
    if not triggers:
        return
    for node in triggers:
        if not top.outgoing[node.id] and len(top.nodes) > 1:
            message = "Nothing follows this trigger: what it starts ends at once."
            yield sound.issue("warning", "trigger_leads_nowhere", message, node)
    reached = _reached(top, [node.id for node in triggers])
    for node in top.nodes.values():
        if node.id not in reached and node.kind != "note":
            message = "No way leads here from a trigger: the node is never run."
            yield sound.issue("warning", "unreachable", message, node)
    ends = [node for node in top.nodes.values() if node.kind == "end"]
    if not ends:
        message = "There is no end: a run ends where its paths do, with the output of their nodes."
        yield sound.issue("warning", "no_end", message)
    elif not any(node.id in reached for node in ends):
        message = "No end can be reached from a trigger."
        yield sound.issue("error", "end_unreachable", message, ends[0])


def _reached(graph: Graph, starts: Iterable[str]) -> set[str]:
    reached, left = set(starts), list(starts)
    while left:
        for edge in graph.outgoing[left.pop()]:
            if edge.target not in reached:
                reached.add(edge.target)
                left.append(edge.target)
    return reached


def _expressions(sound: Sound, kinds: Mapping[str, PublishKind]) -> Iterator[Issue]:
    outputs = {name: kind.output_names for name, kind in kinds.items()}
    names = Names(sound.graph, outputs)
    for node in sound.nodes():
        told: set[tuple[str, str]] = set()
        for source in expressions(kinds[node.kind].config_schema, node.config, "config"):
            for path in sorted(source.expression.names()):
                fault = names.fault(path, node, source.inside)
                if fault is not None and (source.field, fault.message) not in told:
                    told.add((source.field, fault.message))
                    yield sound.issue(fault.level, fault.code, fault.message, node, source.field)
