"""``metronome runs cancel``, ``pause``, ``resume``, ``retry``, ``approve`` and ``reject``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import click

from app.cli import tables
from app.cli.client import Answer, ApiError, Client, connected, print_json
from app.domain.lifecycle import PAUSED

_BEFORE = {
    "already_cancelled": "The run had been cancelled before",
    "already_completed": "The run had completed before",
    "already_failed": "The run had failed before",
}


def _of_a_run(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a run to act on, and the client to do it."""
    both = click.argument("run_id")(connected(command))
    with_metronome: Callable[..., None] = click.argument("metronome_id")(both)
    return with_metronome


def _show(answer: Answer, as_json: bool, lines: list[str]) -> None:
    if as_json:
        print_json(answer.body)
    else:
        click.echo("\n".join(lines))


@click.command("cancel")
@_of_a_run
def cancel_run(api: Client, as_json: bool, metronome_id: str, run_id: str) -> None:
    """Cancel a run: once this has answered, no node of it, or of a run below it, starts."""
    answer = api.post("metronomes", metronome_id, "runs", run_id, "cancel")
    lines = [f"Cancelled {answer.data['id']}: nothing of it starts any more."]
    _show(answer, as_json, _stopped(answer, "Cancel", lines))


@click.command("pause")
@_of_a_run
def pause_run(api: Client, as_json: bool, metronome_id: str, run_id: str) -> None:
    """Pause a run and all below it, until they are resumed."""
    answer = api.post("metronomes", metronome_id, "runs", run_id, "pause")
    if answer.headers.get("Pause-Outcome") == "already_paused":
        lines = ["The run had been paused before; this pause changed nothing."]
    else:
        lines = [f"Paused {answer.data['id']}: nothing of it starts until it is resumed."]
    _show(answer, as_json, _stopped(answer, "Pause", lines))


@click.command("resume")
@click.option(
    "--confirm-in-doubt-replay",
    "confirm",
    is_flag=True,
    help="Run nodes again that may have run before.",
)
@_of_a_run
def resume_run(api: Client, as_json: bool, metronome_id: str, run_id: str, confirm: bool) -> None:
    """Let a paused run go on."""
    body = {"confirmInDoubtReplay": True} if confirm else {}
    try:
        answer = api.post("metronomes", metronome_id, "runs", run_id, "resume", body=body)
    except ApiError as error:
        if error.code == "in_doubt":
            hint = "\nTo run it again: metronome runs resume --confirm-in-doubt-replay"
            raise ApiError(error.message + hint, error.status, error.code, error.details) from None
        raise
    run = answer.data
    if answer.headers.get("Resume-Outcome") == "not_paused":
        lines = [f"{run['id']} is {run['status']}: it was not paused."]
    else:
        lines = [f"Resumed {run['id']}."]
    _show(answer, as_json, lines)


@click.command("retry")
@click.option(
    "--from",
    "start",
    type=click.Choice(["start", "failed"]),
    default="start",
    show_default=True,
    help="Where to begin: failed is behind the nodes that have finished.",
)
@_of_a_run
def retry_run(api: Client, as_json: bool, metronome_id: str, run_id: str, start: str) -> None:
    """Queue a run once more that has failed, was cancelled, or is in doubt."""
    answer = api.post("metronomes", metronome_id, "runs", run_id, "retry", body={"from": start})
    run = answer.data
    attempt = f"attempt {run['attemptCount'] + 1} of {run['maxAttempts']}"
    _show(answer, as_json, [f"Queued {run['id']} once more: {attempt}."])


def _decision(word: str, told: str) -> click.Command:
    """The command that decides so."""

    @click.command(told, help=f"{told.capitalize()} a step that waits for a decision.")
    @click.option("--comment", help="Why; it is kept in the step's output.")
    @click.option("--node", help="Which node, where several wait.")
    @_of_a_run
    def decide(
        api: Client,
        as_json: bool,
        metronome_id: str,
        run_id: str,
        comment: str | None,
        node: str | None,
    ) -> None:
        given = {"decision": word, "comment": comment, "nodeId": node}
        body = {name: value for name, value in given.items() if value is not None}
        answer = api.post("metronomes", metronome_id, "runs", run_id, "approve", body=body)
        run = answer.data
        then = "it is paused until it is resumed" if run["status"] == PAUSED else "it goes on"
        _show(answer, as_json, [f"{word.capitalize()} {run['id']}: {then}."])

    return decide


def in_flight(answer: Answer, action: str = "Cancel") -> list[str]:
    """The nodes that had started and not ended: ids, or ``runId/id`` of those of runs below."""
    header = answer.headers.get(f"{action}-In-Flight", "")
    return [unquote(node) for node in header.split(",") if node]


def _stopped(answer: Answer, action: str, lines: list[str]) -> list[str]:
    """What a cancel or a pause came to, in words; ``lines`` where it was not too late."""
    run: dict[str, Any] = answer.data
    outcome = answer.headers.get(f"{action}-Outcome", "")
    if outcome in _BEFORE:
        ago = tables.age(run["completedAt"])
        lines = [f"{_BEFORE[outcome]} ({ago}); this {action.lower()} changed nothing."]
    nodes = [tables.plain(node) for node in in_flight(answer, action)]
    if more := answer.headers.get(f"{action}-In-Flight-More"):
        nodes.append(f"and {tables.plain(more)} more")
    if nodes:
        verb = "was" if len(nodes) == 1 else "were"
        lines.append(f"In flight {verb}: {', '.join(nodes)}. Only that may still have effects.")
    elif not outcome.startswith("already_"):
        lines.append("No node was in flight.")
    return lines


COMMANDS = (
    cancel_run,
    pause_run,
    resume_run,
    retry_run,
    _decision("approved", "approve"),
    _decision("rejected", "reject"),
)
