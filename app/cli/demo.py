"""``metronome demo``: a run is cancelled midway, and its trace shows that nothing followed.

    create the workflow -> queue a run -> watch it -> cancel -> wait until the executor has let go
    -> check every step's startedAt against the time of the cancel -> archive the workflow

Ctrl-C cancels the run at once instead of later; a second one ends the command.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console

from app.cli import demo_workflow, tables
from app.cli.client import Answer, ApiError, Client, connected, print_json
from app.cli.demo_view import View, view
from app.cli.run_actions import in_flight
from app.cli.tables import Record
from app.domain.lifecycle import CANCELLED, OPEN_STEP, QUEUED, TERMINAL

POLL_SECONDS = 0.1
START_SECONDS = 15.0  # an idle executor starts a run within milliseconds
RUN_SECONDS = 120.0  # of about 6, undisturbed
SETTLE_SECONDS = 30.0  # longer than a lease: a dead executor's steps are closed by then
INTERRUPTED = 130  # what a shell calls a program that Ctrl-C ended


@dataclass(frozen=True, slots=True)
class Ids:
    """The workflow and the run of this demo."""

    metronome: str
    run: str


@click.command()
@click.option(
    "--cancel-after",
    type=click.FloatRange(0, 60),
    default=2.5,
    show_default=True,
    metavar="SECONDS",
    help="When to cancel, from the first step on.",
)
@click.option("--no-cancel", is_flag=True, help="Let the run go to its end, after about 6 s.")
@connected
def demo(api: Client, as_json: bool, cancel_after: float, no_cancel: bool) -> None:
    """Watch a run being cancelled: what was in flight, and that nothing started after it."""
    _check_ready(api)
    screen = None if as_json else tables.console()
    with _interrupts() as interrupt, _workflow(api) as metronome_id:
        created = api.post("metronomes", metronome_id, "runs", body={"input": demo_workflow.INPUT})
        ids = Ids(metronome_id, created.data["id"])
        _introduce(screen, ids, None if no_cancel else cancel_after)
        with _cancelled_on_error(api, ids), view(screen, created.data["createdAt"]) as shown:
            ended = _watch(api, ids, shown, interrupt, None if no_cancel else cancel_after)
            answer = None if ended else _cancel(api, ids)
            run, steps = _settle(api, ids, shown)
    late = late_steps(run, steps)
    if as_json:
        print_json(_document(run, steps, answer, late))
    elif screen is not None:
        _conclude(screen, ids, run, steps, answer, late)
    if late:
        names = ", ".join(
            f"{tables.plain(step['nodeId'])} at {tables.clock(step['startedAt'])}" for step in late
        )
        raise click.ClickException(f"PROMISE BROKEN: steps started after the cancel: {names}")
    if answer and run["status"] != CANCELLED and _outcome(answer) == "cancelled":
        raise click.ClickException(f"PROMISE BROKEN: the cancelled run is now {run['status']}")
    sys.exit(INTERRUPTED if interrupt.is_set() else 0)


def late_steps(run: Record, steps: Sequence[Record]) -> list[Record]:
    """The steps of a cancelled run that started after it was cancelled: there must be none."""
    cancelled = tables.moment(run["completedAt"]) if run["status"] == CANCELLED else None
    if cancelled is None:
        return []
    begun = ((step, tables.moment(step["startedAt"])) for step in steps)
    return [step for step, start in begun if start is not None and start > cancelled]


# -- the run


def _check_ready(api: Client) -> None:
    try:
        api.request("GET", "/readyz")
    except ApiError as error:
        checks = error.details if isinstance(error.details, dict) else {}
        if [name for name, found in checks.items() if found != "ok"] == ["executor"]:
            raise click.ClickException(
                f"{api.url} has no executor, so nobody would take the run; start one with:"
                " metronome executor"
            ) from None
        raise


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; the second time they do what they always do."""
    interrupt = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def on_signal(number: int, frame: object) -> None:
        interrupt.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, on_signal)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _workflow(api: Client) -> Iterator[str]:
    """The demo's workflow, archived at the end; its run stays readable."""
    body = {"name": demo_workflow.NAME, "definition": demo_workflow.DEFINITION}
    metronome_id: str = api.post("metronomes", body=body).data["id"]
    try:
        yield metronome_id
    finally:
        with suppress(click.ClickException):  # it must not hide what went wrong before
            api.delete("metronomes", metronome_id)


@contextmanager
def _cancelled_on_error(api: Client, ids: Ids) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(click.ClickException):
            _cancel(api, ids)
        raise


def _look(api: Client, ids: Ids, shown: View) -> tuple[Record, Sequence[Record]]:
    # The run first: once nobody holds it, its steps are all there.
    run = api.get("metronomes", ids.metronome, "runs", ids.run).data
    steps = api.get("metronomes", ids.metronome, "runs", ids.run, "steps").data
    shown.show(run, steps)
    return run, steps


def _watch(
    api: Client, ids: Ids, shown: View, interrupt: threading.Event, cancel_after: float | None
) -> bool:
    """Show the run until it is to be cancelled: False; or until it has ended by itself: True."""
    queued = time.monotonic()
    begun: float | None = None
    while True:
        run, steps = _look(api, ids, shown)
        now = time.monotonic()
        if run["status"] in TERMINAL:
            return True
        begun = now if begun is None and steps else begun
        if begun is None and run["status"] == QUEUED and now - queued > START_SECONDS:
            raise click.ClickException(
                f"no executor took the run within {START_SECONDS:g} s, so it was cancelled;"
                " is the executor alive, or is it busy?"
            )
        if now - queued > RUN_SECONDS:
            raise click.ClickException(
                f"the run did not end in {RUN_SECONDS:g} s; it was cancelled"
            )
        left = POLL_SECONDS
        if cancel_after is not None and begun is not None:
            left = min(left, begun + cancel_after - now)
        if left <= 0 or interrupt.wait(left):
            return False


def _cancel(api: Client, ids: Ids) -> Answer:
    return api.post("metronomes", ids.metronome, "runs", ids.run, "cancel")


def _settle(api: Client, ids: Ids, shown: View) -> tuple[Record, Sequence[Record]]:
    """The run and its steps, once the executor has let go of it."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        run, steps = _look(api, ids, shown)
        still = [step["nodeId"] for step in steps if step["status"] in OPEN_STEP]
        if run["lockedBy"] is None and not still:
            shown.settled(run, steps)
            return run, steps
        if time.monotonic() > deadline:
            nodes = f"; still open: {', '.join(map(tables.plain, still))}" if still else ""
            raise click.ClickException(
                f"the executor did not let go of the run in {SETTLE_SECONDS:g} s{nodes}"
            )
        time.sleep(POLL_SECONDS / 4)


# -- what is told


def _introduce(screen: Console | None, ids: Ids, cancel_after: float | None) -> None:
    if screen is None:
        return
    then = "goes to its end" if cancel_after is None else f"is cancelled after {cancel_after:g} s"
    screen.print(f"An order goes through {len(demo_workflow.NODE_IDS)} nodes; the run {then}.\n")


def _outcome(answer: Answer) -> str:
    return answer.headers.get("Cancel-Outcome", "")


def _conclude(
    screen: Console,
    ids: Ids,
    run: Record,
    steps: Sequence[Record],
    answer: Answer | None,
    late: Sequence[Record],
) -> None:
    said: list[tuple[str, str]] = []
    if answer is None or _outcome(answer) != "cancelled":
        took = tables.duration(tables.between(run["startedAt"], run["completedAt"]))
        said.append(("Run", f"{run['status']} after {took}, by itself"))
        if run["error"]:
            said.append(("Error", tables.plain(run["error"])))
    else:
        said.append(("Cancel", f"answered 200 in {tables.duration(answer.ms)}"))
        said.append(("In flight", _in_flight(answer, run, steps)))
        if asleep := _asleep(answer, steps):
            said.append(("Asleep", f"{', '.join(asleep)} (ended by the cancel itself)"))
        count = f"{len(late)} step{'' if len(late) == 1 else 's'} started"
        said.append(("After it", f"{count} (every startedAt compared with the cancel's time)"))
        decided = (step for step in steps if step["startedAt"] or step["status"] == "skipped")
        reached = {step["nodeId"] for step in decided}
        never = [node for node in demo_workflow.NODE_IDS if node not in reached]
        said.append(("Not reached", ", ".join(never) or "none"))
    said.append(("Look again", f"metronome runs steps {ids.metronome} {ids.run}"))
    screen.print()
    for name, told in said:
        style = "bold red" if name == "After it" and late else "bold"
        screen.print(f"{name:<12}", style=style, end="")
        screen.print(told, soft_wrap=True)


def _in_flight(answer: Answer, run: Record, steps: Sequence[Record]) -> str:
    """What was in flight when the cancel was answered, and how it ended."""
    ended = {step["nodeId"]: step for step in steps}  # of several attempts, the last
    told = []
    for node in in_flight(answer):
        step = ended.get(node)
        if step is None:
            continue
        after = tables.between(run["completedAt"], step["completedAt"])
        told.append(f"{tables.plain(node)} ({step['status']} {tables.duration(after)} later)")
    return ", ".join(told) or "nothing"


def _asleep(answer: Answer, steps: Sequence[Record]) -> list[str]:
    """The nodes that nobody was in flight in, because they slept, and that the cancel closed."""
    flying = in_flight(answer)
    return [
        tables.plain(step["nodeId"])
        for step in steps
        if step["status"] == CANCELLED and step["startedAt"] and step["nodeId"] not in flying
    ]


def _document(
    run: Record, steps: Sequence[Record], answer: Answer | None, late: Sequence[Record]
) -> dict[str, Any]:
    cancel = answer and {
        "outcome": _outcome(answer),
        "inFlight": in_flight(answer),
        "answerMs": round(answer.ms, 1),
    }
    started_after = [step["id"] for step in late]
    return {"data": {"run": run, "steps": steps, "cancel": cancel, "startedAfter": started_after}}
