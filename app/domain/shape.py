"""Whether a definition is sound: every fault of its nodes, edges and configs, none as exception.

The API saves nothing that has an issue here, so that the executor can rely on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from app.domain.cycles import find_cycles
from app.domain.errors import ValueRefused
from app.domain.jsonvalue import check_json

MAX_NODES = 1_000
MAX_EDGES = 5_000
MAX_BYTES = 1_000_000
MAX_ISSUES = 100
MAX_ID = 128  # characters
MAX_TIMEOUT_MS = 30 * 24 * 3600 * 1000
MAX_ATTEMPTS = 100
MAX_BACKOFF_SECONDS = 86_400

# Kinds of the contract that this version can't run.
NOT_BUILT = frozenset(
    {
        "loop",
        "action",
        "imagine",
        "firecrawl",
        "table",
        "database",
        "ticket",
        "metronome",
        "approval",
    }
)

_OUTPUT_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_RESERVED = frozenset(
    (
        *("trigger", "steps", "run", "inbound"),
        *("true", "false", "none", "null", "True", "False", "None"),
        *("and", "or", "not", "in", "is", "if", "else"),
    )
)


def has_data(node: Mapping[str, Any]) -> bool:
    """Whether a node is of the visual builders' shape, which keeps what matters below ``data``."""
    return "kind" not in node and isinstance(node.get("data"), dict)


class ProblemLike(Protocol):
    """One fault that a node kind found in a config."""

    @property
    def field(self) -> str:
        """Path below the node, or ``handles.<handle>`` for the edges that leave by it."""

    @property
    def message(self) -> str:
        """What is wrong."""


class KindLike(Protocol):
    """What a node kind offers for the check."""

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[ProblemLike]:
        """The faults of a config; ``handles`` has ``""`` for edges without a sourceHandle."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One fault of a definition; ``field`` is a path such as ``definition.nodes.2.config.url``."""

    level: Literal["error", "warning"]
    code: str
    message: str
    field: str
    node_id: str | None = None
    edge_id: str | None = None


def check_shape(definition: object, kinds: Mapping[str, KindLike]) -> list[Issue]:
    """Every fault of ``definition``, at most 100, in definition order; [] where it is sound.

    ``kinds`` maps the kinds that can run to their handlers. Takes any JSON value, and never raises.
    """
    try:
        check_json(definition, "definition", max_bytes=MAX_BYTES)
    except ValueRefused as error:
        field = next(iter(error.details or ()), "definition")
        return [Issue("error", error.code, error.message, field)]
    if not isinstance(definition, dict):
        return [Issue("error", "invalid_type", "The definition must be an object.", "definition")]
    return _Check(definition, kinds).issues()


class _Check:
    """One pass over one definition."""

    def __init__(self, definition: dict[str, Any], kinds: Mapping[str, KindLike]) -> None:
        self._definition = definition
        self._kinds = kinds
        self._found: list[Issue] = []
        self._ids: dict[str, int] = {}
        self._output_keys: dict[str, str] = {}
        self._links: list[tuple[str, str]] = []
        # For each node id: the handles of its leaving edges, and where those edges stand.
        self._handles: dict[str, dict[str, list[tuple[int, str | None]]]] = {}

    def issues(self) -> list[Issue]:
        nodes = self._list("nodes", MAX_NODES)
        edges = self._list("edges", MAX_EDGES) or []
        if nodes is None:
            return self._found  # every edge would seem to dangle
        for index, raw in enumerate(nodes):
            self._node_id(raw, f"definition.nodes.{index}", index)
        edge_ids: set[str] = set()
        for index, raw in enumerate(edges):
            self._edge(raw, f"definition.edges.{index}", index, edge_ids)
        for index, raw in enumerate(nodes):
            if len(self._found) >= MAX_ISSUES:
                break
            if isinstance(raw, dict):
                self._node(raw, index)
        for cycle in find_cycles(list(self._ids), self._links):
            names = " -> ".join([*cycle[:20], "..."] if len(cycle) > 20 else [*cycle, cycle[0]])
            field = f"definition.nodes.{self._ids[cycle[0]]}"
            self._add("cycle", f"The nodes form a cycle: {names}.", field, node_id=cycle[0])
        return self._found

    def _add(
        self,
        code: str,
        message: str,
        field: str,
        *,
        node_id: str | None = None,
        edge_id: str | None = None,
    ) -> None:
        if len(self._found) < MAX_ISSUES:
            self._found.append(Issue("error", code, message, field, node_id, edge_id))

    def _list(self, name: str, most: int) -> list[Any] | None:
        raw = self._definition.get(name, [])
        if not isinstance(raw, list):
            self._add("invalid_type", f"{name} must be a list.", f"definition.{name}")
            return None
        if len(raw) > most:
            message = f"There are {len(raw):,} {name}; {most:,} is the most."
            self._add(f"too_many_{name}", message, f"definition.{name}")
            return None
        return raw

    def _node_id(self, raw: Any, field: str, index: int) -> None:
        if not isinstance(raw, dict):
            self._add("invalid_type", "A node must be an object.", field)
            return
        if raw.get("id") is None:
            self._add("missing_id", "The node has no id.", f"{field}.id")
            return
        fault = _id_fault(raw["id"])
        if fault:
            self._add("invalid_id", f"The node's id {fault}.", f"{field}.id")
        elif raw["id"] in self._ids:
            message = f"The node id '{raw['id']}' is used twice."
            self._add("duplicate_id", message, f"{field}.id", node_id=raw["id"])
        else:
            self._ids[raw["id"]] = index

    def _edge(self, raw: Any, field: str, index: int, seen: set[str]) -> None:
        if not isinstance(raw, dict):
            self._add("invalid_type", "An edge must be an object.", field)
            return
        edge_id: str | None = None
        if raw.get("id") is not None:
            fault = _id_fault(raw["id"])
            if fault:
                self._add("invalid_id", f"The edge's id {fault}.", f"{field}.id")
            else:
                edge_id = raw["id"]
                if edge_id in seen:
                    message = f"The edge id '{edge_id}' is used twice."
                    self._add("duplicate_id", message, f"{field}.id", edge_id=edge_id)
                seen.add(raw["id"])
        for name, kind, what in _EDGE_TYPES:
            if not isinstance(raw.get(name), (kind, type(None))):
                message = f"The edge's {name} must be {what}."
                self._add("invalid_type", message, f"{field}.{name}", edge_id=edge_id)
        known = [
            self._edge_end(raw.get(name), name, f"{field}.{name}", edge_id)
            for name in ("source", "target")
        ]
        if isinstance(raw.get("source"), str):
            handle = raw.get("sourceHandle")
            if isinstance(handle, (str, type(None))):
                handles = self._handles.setdefault(raw["source"], {})
                handles.setdefault(handle or "", []).append((index, edge_id))
        if not all(known):
            return
        if raw["source"] == raw["target"]:
            message = f"The edge leads from the node '{raw['source']}' to itself."
            self._add("self_loop", message, field, node_id=raw["source"], edge_id=edge_id)
        else:
            self._links.append((raw["source"], raw["target"]))

    def _edge_end(self, value: Any, name: str, field: str, edge_id: str | None) -> bool:
        if value is None:
            self._add("missing_field", f"The edge has no {name}.", field, edge_id=edge_id)
        elif not isinstance(value, str):
            message = f"The edge's {name} must be a text."
            self._add("invalid_type", message, field, edge_id=edge_id)
        elif value not in self._ids:
            message = f"The edge's {name} '{value[:MAX_ID]}' is no node of the definition."
            self._add("dangling_edge", message, field, edge_id=edge_id)
        else:
            return True
        return False

    def _node(self, raw: dict[str, Any], index: int) -> None:
        field = f"definition.nodes.{index}"
        node_id = raw.get("id") if isinstance(raw.get("id"), str) else None
        for name, kind, what in _NODE_TYPES:
            if not isinstance(raw.get(name), (kind, type(None))):
                message = f"The node's {name} must be {what}."
                self._add("invalid_type", message, f"{field}.{name}", node_id=node_id)
        if raw.get("parentId") is not None:
            message = "parentId must be null: loops are not available in this version."
            self._add("not_available", message, f"{field}.parentId", node_id=node_id)
        body, below = (raw["data"], f"{field}.data") if has_data(raw) else (raw, field)
        for name, kind, what in _BODY_TYPES:
            if not isinstance(body.get(name), (kind, type(None))):
                message = f"The node's {name} must be {what}."
                self._add("invalid_type", message, f"{below}.{name}", node_id=node_id)
        handler = self._kind(body, below, node_id)
        config = {} if body.get("config") is None else body["config"]
        if not isinstance(config, dict):
            return
        for field_name, message in _common_problems(config):
            self._add("invalid_config", message, f"{below}.config.{field_name}", node_id=node_id)
        self._output_key(config.get("outputKey"), f"{below}.config.outputKey", node_id)
        if handler is not None:
            handles = self._handles.get(node_id or "", {})
            for problem in handler.check(config, frozenset(handles)):
                self._problem(problem, below, node_id, handles)

    def _kind(self, body: dict[str, Any], below: str, node_id: str | None) -> KindLike | None:
        kind = body.get("kind")
        field = f"{below}.kind"
        if kind is None:
            self._add("missing_kind", "The node has no kind.", field, node_id=node_id)
        elif not isinstance(kind, str):
            self._add("invalid_type", "The node's kind must be a text.", field, node_id=node_id)
        elif kind in self._kinds:
            return self._kinds[kind]
        elif kind in NOT_BUILT:
            message = f"Nodes of the kind '{kind}' are not available in this version."
            self._add("not_available", message, field, node_id=node_id)
        else:
            known = ", ".join(sorted(self._kinds))
            message = f"There is no node kind '{kind[:40]}'; there are {known}."
            self._add("unknown_kind", message, field, node_id=node_id)
        return None

    def _problem(
        self,
        problem: ProblemLike,
        below: str,
        node_id: str | None,
        handles: Mapping[str, list[tuple[int, str | None]]],
    ) -> None:
        what, _, handle = problem.field.partition(".")
        if what != "handles":
            field = f"{below}.{problem.field}"
            self._add("invalid_config", problem.message, field, node_id=node_id)
            return
        for index, edge_id in handles.get(handle, ()):
            field = f"definition.edges.{index}.sourceHandle"
            self._add("unknown_branch", problem.message, field, node_id=node_id, edge_id=edge_id)

    def _output_key(self, value: Any, field: str, node_id: str | None) -> None:
        if value is None or value == "":
            return
        if not isinstance(value, str) or not _OUTPUT_KEY.fullmatch(value) or value in _RESERVED:
            message = (
                "outputKey must be a name of letters, digits and _, at most 64, and none of "
                "trigger, steps, run, inbound or a word of the expression language."
            )
            self._add("invalid_output_key", message, field, node_id=node_id)
        elif value in self._output_keys:
            message = f"outputKey '{value}' is that of the node '{self._output_keys[value]}' too."
            self._add("duplicate_output_key", message, field, node_id=node_id)
        else:
            self._output_keys[value] = node_id or ""


_NODE_TYPES: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("position", dict, "an object"),
    ("style", dict, "an object"),
    ("data", dict, "an object"),
)
_BODY_TYPES: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("subtype", str, "a text"),
    ("label", str, "a text"),
    ("description", str, "a text"),
    ("config", dict, "an object"),
)
_EDGE_TYPES: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("sourceHandle", str, "a text"),
    ("targetHandle", str, "a text"),
    ("config", dict, "an object"),
)


def _id_fault(value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a text"
    if not value.strip():
        return "is empty"
    return f"is longer than {MAX_ID} characters" if len(value) > MAX_ID else None


def _is_number(value: Any, least: float, most: float, *, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return False
    return bool(least <= value <= most)


def _common_problems(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The faults of what every kind's config may have: timeoutMs and retry."""
    timeout = config.get("timeoutMs")
    if timeout is not None and not _is_number(timeout, 1, MAX_TIMEOUT_MS, whole=True):
        yield "timeoutMs", f"timeoutMs must be a whole number from 1 to {MAX_TIMEOUT_MS}."
    retry = config.get("retry")
    if retry is None:
        return
    if not isinstance(retry, dict):
        yield "retry", "retry must be an object {maxAttempts, backoffSeconds}."
        return
    attempts = retry.get("maxAttempts")
    if attempts is not None and not _is_number(attempts, 1, MAX_ATTEMPTS, whole=True):
        yield "retry.maxAttempts", f"maxAttempts must be a whole number from 1 to {MAX_ATTEMPTS}."
    backoff = retry.get("backoffSeconds")
    if backoff is not None and not _is_number(backoff, 0, MAX_BACKOFF_SECONDS, whole=False):
        message = f"backoffSeconds must be a number from 0 to {MAX_BACKOFF_SECONDS}."
        yield "retry.backoffSeconds", message
