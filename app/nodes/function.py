"""The function: calls a Python function that the deployer has installed, or a remote one.

A package offers functions through the entry-point group ``metronome.functions``:

    [options.entry_points]
    metronome.functions =
        resize = my_package.images:resize

    def resize(payload):                # or: def resize(payload, context)
        return {"width": payload["width"] // 2}

    resize.metronome_replay_safe = True # running it twice does no harm
    resize.metronome_pure = True        # it only computes, in less than a few milliseconds

Config: ``functionName`` or ``functionId`` (the entry point's name), and ``payload`` (any JSON with
bindings) or ``payloadJson`` (a text that holds JSON with bindings). The step's output is what the
function returns, or ``{"value": ...}`` where that is no object. An exception fails the node; one
with the attribute ``retryable = False`` fails it for good.

A name that no package has goes to the connector of the kind, where there is one: see dispatch.py.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import orjson

from app.domain.connectors import VARIABLE, Connector, chosen, replay_safe
from app.domain.errors import ExpressionError, ValueRefused
from app.domain.jsonvalue import clean_text, dumps
from app.domain.outcomes import Done, Failed, Interrupted, Outcome
from app.domain.stop import StopSignal
from app.nodes import dispatch
from app.nodes.base import Context, News, NodeKind, NodeLimits, Problem, Unserved
from app.nodes.bindings import as_object, json_problems, render_json
from app.nodes.dispatch import Work
from app.nodes.fields import anything, json_or_text, json_text, one_of_them, text_field

GROUP = "metronome.functions"
_ERROR_LENGTH = 2_000  # characters of an exception's text in the trace


class Stopped(Exception):
    """What ``FunctionContext.raise_if_stopped`` raises."""


@dataclass(frozen=True, slots=True)
class FunctionContext:
    """What a function with a second parameter is told about its step."""

    run_id: str
    step_id: str
    node_id: str
    attempt: int
    idempotency_key: str
    _stop: StopSignal

    def stopped(self) -> bool:
        """Whether the run wants the function to give up (it was cancelled, for one)."""
        return self._stop.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds``, or until the run wants the function to give up: True then."""
        return self._stop.wait(seconds)

    def raise_if_stopped(self) -> None:
        """Leave the function where the run wants that; the step is recorded as interrupted."""
        if self._stop.is_set():
            raise Stopped


class Functions:
    """The functions that are installed; found at the first use, imported one by one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._points: dict[str, EntryPoint] | None = None
        self._loaded: dict[str, tuple[Callable[..., Any], bool]] = {}

    def has(self, name: str) -> bool:
        """Whether a function of that name is installed; it may be one that can't be imported."""
        return name in self._found()

    def find(self, name: str) -> tuple[Callable[..., Any], bool]:
        """The function called ``name``, and whether it takes a context.

        Raises LookupError where none is installed, or whatever its import raises.
        """
        known = self._loaded.get(name)
        if known is not None:
            return known
        points = self._found()
        point = points.get(name)
        if point is None:
            there = ", ".join(sorted(points)) or "none"
            raise LookupError(
                f"There is no function '{name[:100]}'. Install a package on the executor that has "
                f"it in the entry-point group '{GROUP}' (installed: {there}), or give the kind a "
                f"connector: a table [connectors.function] in the file that {VARIABLE} names."
            )
        # Outside of the lock: an import may take long, and others must not wait for it.
        function = point.load()
        if not callable(function):
            raise TypeError(f"{point.value} can't be called")
        loaded = self._loaded[name] = (function, _takes_context(function))
        return loaded

    def _found(self) -> Mapping[str, EntryPoint]:
        with self._lock:
            if self._points is None:
                self._points = {point.name: point for point in entry_points(group=GROUP)}
            return self._points


FUNCTIONS = Functions()


class Function(NodeKind):
    """Calls the function in this thread, which only it can interrupt; or dispatches the node."""

    kind = "function"
    usual_subtypes = ("invoke_function",)
    effect = "calls a function"
    title = "Function"
    told = "Calls a Python function that is installed with the executor, or a remote one."
    fields = (
        text_field("functionName", "The name of the entry point.", bindings=False),
        text_field(
            "functionId", "The same; functionName counts where both are given.", bindings=False
        ),
        anything("payload", "What the function is given; {} where it is absent."),
        json_text("payloadJson", "Instead of payload: a text that holds JSON."),
    )
    rules = (one_of_them("functionName", "functionId"), json_or_text("payload"))
    replay_safe_where = (
        "the function says metronome_replay_safe or metronome_pure, or its connector is set to"
        " replaySafe"
    )
    bound = ("payload",)

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[Problem]:
        """Types and bindings; whether the function is installed only the executor's host knows."""
        for name in ("functionName", "functionId"):
            if not isinstance(config.get(name), (str, type(None))):
                yield Problem(f"config.{name}", f"{name} must be a text.")
        yield from json_problems(config, "payload")

    def missing(self, config: Mapping[str, Any]) -> Iterable[Problem]:
        """The function's name."""
        if not _name(config):
            yield Problem("config.functionName", "A function node needs functionName.")

    def replay_safe(self, config: Mapping[str, Any], limits: NodeLimits) -> bool:
        """What the function says, or else the connector's settings; what is pure is safe."""
        name = _name(config)
        if not FUNCTIONS.has(name):
            return replay_safe(limits.connectors, self.kind)
        return _says(name, "metronome_replay_safe") or _says(name, "metronome_pure")

    def is_pure(self, config: Mapping[str, Any]) -> bool:
        """What the function's ``metronome_pure`` says; not with a timeout, which is for a wait."""
        name = _name(config)
        return FUNCTIONS.has(name) and _says(name, "metronome_pure") and "timeoutMs" not in config

    def connector(
        self, config: Mapping[str, Any], limits: NodeLimits, subtype: str | None = None
    ) -> str | None:
        """The connector of the kind, where the function is none that is installed here."""
        if FUNCTIONS.has(_name(config)):
            return None
        found = chosen(limits.connectors, self.kind, subtype)
        return None if found is None else found.name

    def unserved(
        self, config: Mapping[str, Any], limits: NodeLimits, subtype: str | None
    ) -> Unserved | None:
        """A function that is not installed here may still be where the executors are."""
        name = _name(config)
        if FUNCTIONS.has(name) or self.connector(config, limits, subtype) is not None:
            return None
        message = (
            f"There is no function '{name[:100]}' here, and no connector for the kind. It must be"
            " installed with every executor."
        )
        return Unserved(message, surely=False)

    def run(self, context: Context) -> Outcome:
        """What the function returns, or what the connector answers."""
        name = _name(context.config)
        connector = chosen(context.limits.connectors, self.kind, context.node_subtype)
        if connector is not None and not FUNCTIONS.has(name):
            return self._dispatch(context, connector)
        try:
            function, takes_context = FUNCTIONS.find(name)
        except LookupError as error:
            return Failed(str(error.args[0]), retryable=False)
        except BaseException as error:
            what = f"The function '{name[:100]}' can't be imported: {_said(error)}"
            return Failed(what, retryable=False)
        try:
            payload = _payload(context)
        except (ExpressionError, ValueRefused) as error:
            return Failed(error.message, retryable=False)
        about = FunctionContext(
            context.run_id,
            context.step_id,
            context.node_id,
            context.attempt,
            context.idempotency_key,
            context.stop,
        )
        try:
            result = function(payload, about) if takes_context else function(payload)
        except Stopped:
            return Interrupted(f"The function gave up: {context.stop.reason}.")
        except BaseException as error:  # SystemExit too: it would end the worker thread
            return Failed(_said(error), retryable=getattr(error, "retryable", True) is not False)
        try:
            made = dumps(result, "result", max_bytes=context.limits.output_max_bytes)
        except ValueRefused as error:
            return Failed(f"What the function returned: {error.message}", retryable=False)
        # Read back, so that the output is plain JSON, and nobody's to change later.
        return Done(as_object(orjson.loads(made)))

    def resume(self, context: Context, news: News) -> Outcome:
        """What the connector called back."""
        return dispatch.resume(self.kind, news)

    def _dispatch(self, context: Context, connector: Connector) -> Outcome:
        try:
            payload = _payload(context)
        except (ExpressionError, ValueRefused) as error:
            return Failed(error.message, retryable=False)
        names = ("functionName", "functionId")
        config = {name: context.config[name] for name in names if context.config.get(name)}
        config["payload"] = payload
        given = dispatch.run_input(context.scope)
        work = Work(self.kind, context.node_subtype, config, given, {})
        return dispatch.send(context, connector, work)


def _says(name: str, what: str) -> bool:
    """Whether the installed function says that of itself."""
    try:
        function, _ = FUNCTIONS.find(name)
    except BaseException:  # its import may raise anything, and is reported by run
        return False
    return getattr(function, what, False) is True


def _name(config: Mapping[str, Any]) -> str:
    return str(config.get("functionName") or config.get("functionId") or "")


def _takes_context(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return True
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) >= 2


def _payload(context: Context) -> Any:
    """The payload, copied: the function may change it, and it may be part of another's output."""
    payload = render_json(context.config, "payload", context.scope)
    return {} if payload is None else orjson.loads(orjson.dumps(payload))


def _said(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception:
        message = ""
    name = type(error).__name__
    return clean_text(f"{name}: {message}" if message else name, _ERROR_LENGTH)
