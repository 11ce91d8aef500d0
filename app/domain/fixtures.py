"""What stands in for the nodes around a part of a workflow that is tested alone.

A stand-in does not do what its node does: it ends as the test's fixture says. Where the fixture
says nothing, it ends well, with the least that such a node answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.domain.errors import Invalid
from app.domain.graph import FIXTURE, Node
from app.domain.lifecycle import SKIPPED
from app.domain.progress import APPROVED, ERROR_HANDLE

REJECTED: Final = "rejected"
ELSE: Final = "else"
UNTOLD: Final = "it failed in the fixture"  # the error where the fixture has none
# What the nodes inside of a loop see as ``loop``, where the loop itself is not part of the test.
_ABOUT_LOOP: Final[Mapping[str, Any]] = {
    "index": 0,
    "count": 1,
    "item": None,
    "items": [],
    "previous": None,
    "outer": None,
}


@dataclass(frozen=True, slots=True)
class Fixture:
    """What a caller says of the nodes around: by node id, outputs, branches and errors.

    An output of None says that the node was skipped. ``loop`` is what the nodes inside of a loop
    see of it. ``input`` is the run's input. Each is any JSON, and never holds bindings.
    """

    input: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, Any] = field(default_factory=dict)
    branches: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    loop: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StandIn:
    """How the node that stands in for ``node`` ends; ``given`` where the fixture has its output.

    ``assumed`` holds the branches among which one was taken at a guess; ``error`` is None where it
    ends well. ``inside`` is the loop of the test that it is inside of. ``of_input`` says that its
    output is the run's input, which is not repeated in the definition.
    """

    node: Node
    output: dict[str, Any]
    branch: str | None = None
    error: str | None = None
    skipped: bool = False
    given: bool = False
    assumed: tuple[str, ...] = ()
    inside: str | None = None
    output_key: str | None = None
    of_input: bool = False

    def raw(self, original: Mapping[str, Any]) -> dict[str, Any]:
        """The node of the derived definition; ``original`` is that of the definition."""
        config: dict[str, Any] = {"ofInput": True} if self.of_input else {"output": self.output}
        for name, value in (
            ("branch", self.branch if self.error is None else None),
            ("error", self.error),
            (SKIPPED, self.skipped or None),
            ("outputKey", self.output_key),
        ):
            if value is not None:
                config[name] = value
        raw: dict[str, Any] = {"id": self.node.id, "kind": FIXTURE, "subtype": self.node.kind}
        if self.node.label is not None:
            raw["label"] = self.node.label
        if isinstance(original.get("position"), dict):
            raw["position"] = original["position"]
        if self.inside is not None:
            raw["parentId"] = self.inside
        return {**raw, "config": config}


def stand_in(
    node: Node,
    handles: Sequence[str | None],
    fixture: Fixture,
    *,
    inside: str | None,
    idle: bool = False,
) -> StandIn:
    """The stand-in for ``node``, of which edges with these handles lead into the test.

    ``idle`` says that it is a trigger at which such a run does not begin. Raises Invalid where the
    fixture names a branch that the node has not, or that leads nowhere.
    """
    id, given = node.id, node.id in fixture.steps
    if (given and fixture.steps[id] is None) or (idle and not given):
        return StandIn(node, {}, skipped=True, given=given, inside=inside)
    branch, assumed = _branch(node, [handle_of(node, handle) for handle in handles], fixture)
    error = fixture.errors.get(id, UNTOLD) if branch == ERROR_HANDLE else None
    output = _as_object(fixture.steps[id]) if given else _least(node, branch, fixture)
    key = node.output_key
    of_input = node.kind == "trigger" and not given
    return StandIn(node, output, branch, error, False, given, assumed, inside, key, of_input)


def around(loop: Node, fixture: Fixture) -> StandIn:
    """The stand-in for a loop of which only what is inside is tested: it answers for ``loop``."""
    given = dict(fixture.loop or {})
    if "item" in given and "items" not in given:
        given["items"] = [given["item"]]
    about = {**_ABOUT_LOOP, **given}
    return StandIn(loop, about, given=fixture.loop is not None, output_key="loop")


def handle_of(node: Node, handle: str | None) -> str | None:
    """The handle that an edge of ``node`` has where it leaves the node's stand-in.

    An approval's edge without a handle is that of ``approved``; nobody knows that of a stand-in.
    """
    return APPROVED if handle is None and node.kind == "approval" else handle


def _branch(
    node: Node, handles: Sequence[str | None], fixture: Fixture
) -> tuple[str | None, tuple[str, ...]]:
    """The branch that is taken, None for every edge; and those that it was guessed from."""
    wanted, field = fixture.branches.get(node.id), f"fixture.branches.{node.id}"
    if node.id in fixture.errors:
        if wanted not in (None, ERROR_HANDLE):
            raise _refused(field, "fixture.errors says that the node failed")
        wanted, field = ERROR_HANDLE, f"fixture.errors.{node.id}"
    ways = list(dict.fromkeys(h for h in handles if h not in (None, ERROR_HANDLE)))
    if wanted is None:
        if handles and all(handle == ERROR_HANDLE for handle in handles):
            return ERROR_HANDLE, ()
        if not _chooses(node) or not ways:
            return None, ()
        first = APPROVED if APPROVED in ways else ways[0]
        return first, tuple(str(way) for way in ways) if len(ways) > 1 else ()
    offered = _offered(node)
    if wanted not in offered:
        raise _refused(field, f"the node has no such branch; there are {', '.join(offered)}")
    if wanted == ERROR_HANDLE and ERROR_HANDLE not in handles:
        raise _refused(field, "no edge of the handle error leads from the node into the selection")
    return _as_handle(node, wanted, ways), ()


def _chooses(node: Node) -> bool:
    return node.kind in ("condition", "approval")


def _conditions(node: Node) -> list[str]:
    entries = node.config.get("conditions") or ()
    return [entry["id"] for entry in entries]


def _offered(node: Node) -> list[str]:
    if node.kind == "approval":
        return [APPROVED, REJECTED, ERROR_HANDLE]
    if node.kind != "condition":
        return [ERROR_HANDLE]
    ids = _conditions(node)
    return [*ids, ELSE, *(("true", "false") if len(ids) == 1 else ()), ERROR_HANDLE]


def _as_handle(node: Node, wanted: str, ways: Sequence[str | None]) -> str:
    """A condition with one entry may be left by its id or by ``true``, by ``else`` or ``false``."""
    ids = _conditions(node) if node.kind == "condition" else []
    if len(ids) != 1 or wanted in ways:
        return wanted
    same = {ids[0]: "true", "true": ids[0], ELSE: "false", "false": ELSE}
    other = same.get(wanted, wanted)
    return other if other in ways else wanted


def _least(node: Node, branch: str | None, fixture: Fixture) -> dict[str, Any]:
    if node.kind == "trigger":
        return dict(fixture.input)
    if branch is None or branch == ERROR_HANDLE:
        return {}
    if node.kind == "approval":
        return {"decision": branch}
    ids = _conditions(node)
    plain = {"true": ids[0], "false": ELSE} if len(ids) == 1 else {}
    return {"matched": plain.get(branch, branch)}


def _as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"value": value}


def _refused(field: str, message: str) -> Invalid:
    return Invalid(f"{field}: {message}", details={field: [message]})
