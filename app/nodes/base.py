"""What every node kind is: a literal in the REGISTRY that checks its config and runs.

A kind lives in one file, knows no SQL and no HTTP API, and returns an Outcome.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

from app.domain.connectors import Connector
from app.domain.expressions import render
from app.domain.outcomes import Outcome
from app.domain.stop import StopSignal
from app.nodes.config_schema import config_schema
from app.nodes.fields import Field, Schema


@dataclass(frozen=True, slots=True)
class NodeLimits:
    """What the deployer allows nodes to do (from Settings)."""

    http_allowed_private: tuple[str, ...] = ()  # host names, addresses or networks in CIDR form
    http_max_bytes: int = 1_000_000  # of a response body, after decompression
    http_timeout_ms: int = 30_000  # where a node sets none
    output_max_bytes: int = 1_000_000  # of a step's output as JSON
    connectors: Mapping[str, Connector] = field(default_factory=dict)  # by node kind
    public_url: str = ""  # where the API can be reached by those who call back


@dataclass(frozen=True, slots=True)
class Context:
    """Everything a handler may know about the node that it runs.

    ``input`` is the config's bound fields (``NodeKind.bound``) with their bindings rendered;
    ``scope`` is what expressions see: ``trigger``, ``steps``, ``run`` and the output keys.
    ``started_at`` is database time. ``idempotency_key`` is the step's id, or that of the step whose
    replay this is, so that a remote side can tell a replay from a new request.
    """

    organization_id: str
    metronome_id: str
    run_id: str
    step_id: str
    node_id: str
    node_label: str | None
    attempt: int
    config: Mapping[str, Any]
    input: Mapping[str, Any]
    scope: Mapping[str, Any]
    handles: frozenset[str]  # sourceHandles of the edges that leave this node
    started_at: datetime
    idempotency_key: str
    stop: StopSignal
    limits: NodeLimits
    callback_token: str | None = None  # with which a remote side may end this step
    node_subtype: str | None = None


@dataclass(frozen=True, slots=True)
class News:
    """Why a parked node is looked at again.

    ``result`` is what came from outside (a decision, a callback, the end of a nested run), or None
    where only its time has come. ``output`` is what it was parked with. ``waited_ms`` counts from
    the step's start.
    """

    result: Mapping[str, Any] | None
    output: Mapping[str, Any]
    waited_ms: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a node's config: ``field`` is the path below the node, as ``config.url``.

    ``handles.<handle>`` is a fault of the edges that leave by that handle.
    """

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Branch:
    """One way in which a node may go on: it takes the edges that leave by one of ``handles``.

    ``expected`` says that a workflow in which no edge does so is surely not finished.
    """

    name: str
    handles: frozenset[str]
    expected: bool


@dataclass(frozen=True, slots=True)
class Unserved:
    """Nobody here does a node's work; ``surely`` False where another process may know somebody."""

    message: str
    surely: bool = True


class NodeKind:
    """A kind of node.

    ``bound`` names the config fields whose bindings are rendered before the node starts and
    recorded as the step's input. ``interruptible`` says whether it ends at once on the stop signal.
    ``subtypes`` are those that its nodes may have; () where any text is one, though the
    ``usual_subtypes`` may mean something.

    The rest is what a user is told of the kind, and what publishing looks at: ``title``, ``told``,
    the ``fields`` of its config, the ``rules`` between these (JSON Schemas of the config) and the
    schema of its ``other`` fields; ``outputs``, the fields of its step's output (None: any), and
    ``handles``, by which its edges leave, each with when they are taken. ``replay_safe_where`` says
    which nodes may run twice without harm; None where all may.
    """

    kind: ClassVar[str]
    effect: ClassVar[str | None] = None  # what running it does outside of this service
    bound: ClassVar[tuple[str, ...]] = ()
    interruptible: ClassVar[bool] = False
    subtypes: ClassVar[tuple[str, ...]] = ()
    usual_subtypes: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str]
    told: ClassVar[str]
    fields: ClassVar[tuple[Field, ...]] = ()
    rules: ClassVar[tuple[Schema, ...]] = ()
    other: ClassVar[Schema] = {}
    outputs: ClassVar[tuple[Field, ...] | None] = None
    handles: ClassVar[Mapping[str, str]] = {"error": "The node has failed for good."}
    replay_safe_where: ClassVar[str | None] = None

    @cached_property
    def config_schema(self) -> Schema:
        """What a config of this kind may hold; a draft may lack what is required."""
        return config_schema(self.fields, self.rules, self.other)

    @cached_property
    def output_names(self) -> frozenset[str] | None:
        """The fields of its output; None where it may have any."""
        return None if self.outputs is None else frozenset(field.name for field in self.outputs)

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[Problem]:
        """What keeps ``config``, or the handles of the leaving edges, from being saved.

        ``handles`` has ``""`` where an edge leaves without a sourceHandle.
        """
        return ()

    def missing(self, config: Mapping[str, Any]) -> Iterable[Problem]:
        """What ``config`` lacks before the node can run; a draft may lack it, a run fails."""
        return ()

    def publish_problems(self, config: Mapping[str, Any], subtype: str | None) -> Iterable[Problem]:
        """What keeps a node that lacks nothing from being published, though it could run."""
        return ()

    def branches(self, config: Mapping[str, Any]) -> Iterable[Branch]:
        """The ways in which a node with a sound config may go on; () where there is only one."""
        return ()

    def unserved(
        self, config: Mapping[str, Any], limits: NodeLimits, subtype: str | None
    ) -> Unserved | None:
        """What the node needs of the deployment and does not find; None where it finds it."""
        return None

    pure: ClassVar[bool] = False  # every node of the kind is, whatever its config

    def is_pure(self, config: Mapping[str, Any]) -> bool:
        """Whether ``run`` only computes, at once: no effect, waits for nothing, asks nobody.

        The step of such a node may be written when it has ended: see engine/riding.py.
        """
        return self.pure

    def replay_safe(self, config: Mapping[str, Any], limits: NodeLimits) -> bool:
        """Whether running the node again after a lost executor can do no harm."""
        return True

    def connector(
        self, config: Mapping[str, Any], limits: NodeLimits, subtype: str | None = None
    ) -> str | None:
        """The name of the connector that the node is dispatched to; None where it runs here."""
        return None

    def bind(self, config: Mapping[str, Any], scope: Mapping[str, Any]) -> dict[str, Any]:
        """The node's input: the ``bound`` fields, rendered. Raises ExpressionError."""
        wanted = {name: config[name] for name in self.bound if name in config}
        return render(wanted, scope) if wanted else {}

    def record(self, rendered: Mapping[str, Any]) -> dict[str, Any] | None:
        """What the trace keeps of the rendered input: secrets masked; None for nothing."""
        return dict(rendered) or None

    def run(self, context: Context) -> Outcome:
        """Do the node's work."""
        raise NotImplementedError

    def resume(self, context: Context, news: News) -> Outcome:
        """What has become of a node that was parked; must be quick. ``context.input`` is empty."""
        raise NotImplementedError
