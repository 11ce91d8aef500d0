"""The check of a definition's nodes, but for what is between them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from app.domain.forms import body_of, config_of, has_data
from app.domain.issues import Issues

MAX_TIMEOUT_MS = 30 * 24 * 3600 * 1000
MAX_ATTEMPTS = 100
MAX_BACKOFF_SECONDS = 86_400

_RESERVED = (
    *("trigger", "steps", "run", "inbound", "loop"),
    *("true", "false", "none", "null", "True", "False", "None"),
    *("and", "or", "not", "in", "is", "if", "else"),
)
OUTPUT_KEY = rf"^(?!({'|'.join(_RESERVED)})$)[A-Za-z_][A-Za-z0-9_]{{0,63}}$"
_OUTPUT_KEY = re.compile(OUTPUT_KEY.replace("$", r"\Z"))  # Python's $ passes an end of line
_NODE_TYPES = (
    ("position", dict, "an object"),
    ("style", dict, "an object"),
    ("data", dict, "an object"),
    ("parentId", str, "a text"),
)
_BODY_TYPES = (
    ("subtype", str, "a text"),
    ("label", str, "a text"),
    ("description", str, "a text"),
    ("config", dict, "an object"),
)

Handles = Mapping[str, list[tuple[int, str | None]]]


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

    @property
    def subtypes(self) -> tuple[str, ...]:
        """The subtypes that there are; () where any text is one."""

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[ProblemLike]:
        """The faults of a config; ``handles`` has ``""`` for edges without a sourceHandle."""


class NodeCheck:
    """Looks at one node after the other."""

    def __init__(self, kinds: Mapping[str, KindLike], issues: Issues) -> None:
        self._kinds = kinds
        self._issues = issues
        self._output_keys: dict[str, str] = {}

    def check(self, raw: dict[str, Any], index: int, handles: Mapping[str, Handles]) -> None:
        """Note the faults of the node at ``index``; ``handles`` are by node id."""
        field = f"definition.nodes.{index}"
        node_id = raw.get("id") if isinstance(raw.get("id"), str) else None
        self._issues.add_types(raw, _NODE_TYPES, "node", field, node_id=node_id)
        body, below = body_of(raw), f"{field}.data" if has_data(raw) else field
        self._issues.add_types(body, _BODY_TYPES, "node", below, node_id=node_id)
        handler = self._kind(body, below, node_id)
        if not isinstance(body.get("config"), (dict, type(None))):
            return
        config = config_of(body)
        for name, message in _common_problems(config):
            where = f"{below}.config.{name}"
            self._issues.add("invalid_config", message, where, node_id=node_id)
        self._output_key(config.get("outputKey"), f"{below}.config.outputKey", node_id)
        if handler is not None:
            self._subtype(handler, body, below, node_id)
            own = handles.get(node_id or "", {})
            for problem in handler.check(config, frozenset(own)):
                self._problem(problem, below, node_id, own)

    def _kind(self, body: Mapping[str, Any], below: str, node_id: str | None) -> KindLike | None:
        kind = body.get("kind")
        if isinstance(kind, str) and kind in self._kinds:
            return self._kinds[kind]
        if kind is None:
            code, message = "missing_kind", "The node has no kind."
        elif not isinstance(kind, str):
            code, message = "invalid_type", "The node's kind must be a text."
        else:
            known = ", ".join(sorted(self._kinds))
            code = "unknown_kind"
            message = f"There is no node kind '{kind[:40]}'; there are {known}."
        self._issues.add(code, message, f"{below}.kind", node_id=node_id)
        return None

    def _subtype(
        self, handler: KindLike, body: Mapping[str, Any], below: str, node_id: str | None
    ) -> None:
        subtype = body.get("subtype")
        known = handler.subtypes
        if known and isinstance(subtype, str) and subtype and subtype not in known:
            kind = body.get("kind")
            message = (
                f"A node of the kind '{kind}' can be {', '.join(known)}, not '{subtype[:40]}'."
            )
            self._issues.add("unknown_subtype", message, f"{below}.subtype", node_id=node_id)

    def _problem(
        self, problem: ProblemLike, below: str, node_id: str | None, handles: Handles
    ) -> None:
        what, _, handle = problem.field.partition(".")
        if what != "handles":
            field = f"{below}.{problem.field}"
            self._issues.add("invalid_config", problem.message, field, node_id=node_id)
            return
        for index, edge_id in handles.get(handle, ()):
            field = f"definition.edges.{index}.sourceHandle"
            self._issues.add(
                "unknown_branch", problem.message, field, node_id=node_id, edge_id=edge_id
            )

    def _output_key(self, value: Any, field: str, node_id: str | None) -> None:
        if value is None or value == "":
            return
        if not isinstance(value, str) or not _OUTPUT_KEY.match(value):
            message = (
                "outputKey must be a name of letters, digits and _, at most 64, and none of "
                "trigger, steps, run, inbound, loop or a word of the expression language."
            )
            self._issues.add("invalid_output_key", message, field, node_id=node_id)
        elif value in self._output_keys:
            message = f"outputKey '{value}' is that of the node '{self._output_keys[value]}' too."
            self._issues.add("duplicate_output_key", message, field, node_id=node_id)
        else:
            self._output_keys[value] = node_id or ""


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
