"""``metronome runs``: list, show and cancel runs."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import click

from app.cli import tables
from app.cli.client import Answer, Client, connected, print_json
from app.domain.lifecycle import RUN_STATUSES

OUTCOMES = {
    "already_cancelled": "The run had been cancelled before",
    "already_completed": "The run had completed before",
    "already_failed": "The run had failed before",
}


@click.group()
def runs() -> None:
    """List, show and cancel runs."""


@runs.command("list")
@click.option("--metronome", required=True, metavar="ID", help="The workflow whose runs to list.")
@click.option(
    "--status", multiple=True, type=click.Choice(RUN_STATUSES), help="Only these; repeatable."
)
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0, help="How many to pass over.")
@connected
def list_runs(
    api: Client, as_json: bool, metronome: str, status: tuple[str, ...], limit: int, offset: int
) -> None:
    """List the runs of a workflow, newest first."""
    query = {"limit": limit, "offset": offset or None, "status": ",".join(status) or None}
    answer = api.get("metronomes", metronome, "runs", **query)
    if as_json:
        print_json(answer.body)
    elif not answer.data:
        click.echo("There are no such runs." if status or offset else "There is no run yet.")
    else:
        tables.show(tables.console(), tables.runs(answer.data))
    if answer.body["has_more"] and not as_json:
        click.echo(f"There are more: --offset {offset + limit}")


@runs.command("get")
@click.argument("metronome_id")
@click.argument("run_id")
@connected
def get_run(api: Client, as_json: bool, metronome_id: str, run_id: str) -> None:
    """Show one run."""
    answer = api.get("metronomes", metronome_id, "runs", run_id)
    if as_json:
        print_json(answer.body)
    else:
        tables.show(tables.console(), tables.run(answer.data))


@runs.command("steps")
@click.argument("metronome_id")
@click.argument("run_id")
@connected
def list_steps(api: Client, as_json: bool, metronome_id: str, run_id: str) -> None:
    """Show the trace of a run: what happened, in order."""
    answer = api.get("metronomes", metronome_id, "runs", run_id, "steps")
    if as_json:
        print_json(answer.body)
        return
    run = api.get("metronomes", metronome_id, "runs", run_id, view="compact").data
    screen = tables.console()
    screen.print(tables.status(run["status"], f"{run['id']}  {run['status']}"))
    if answer.data:
        tables.show(screen, tables.steps(answer.data, run))
    else:
        screen.print("No node has started.")


@runs.command("cancel")
@click.argument("metronome_id")
@click.argument("run_id")
@connected
def cancel_run(api: Client, as_json: bool, metronome_id: str, run_id: str) -> None:
    """Cancel a run: once this has answered, no node of it starts."""
    answer = api.post("metronomes", metronome_id, "runs", run_id, "cancel")
    if as_json:
        print_json(answer.body)
    else:
        click.echo("\n".join(cancel_lines(answer)))


def in_flight(answer: Answer) -> list[str]:
    """The ids of the nodes that had started and not ended when a cancel was answered."""
    header = answer.headers.get("Cancel-In-Flight", "")
    return [unquote(node) for node in header.split(",") if node]


def cancel_lines(answer: Answer) -> list[str]:
    """What a cancel came to, in words."""
    run: dict[str, Any] = answer.data
    outcome = answer.headers.get("Cancel-Outcome", "")
    nodes = [tables.plain(node) for node in in_flight(answer)]
    if outcome in OUTCOMES:
        ago = tables.age(run["completedAt"])
        lines = [f"{OUTCOMES[outcome]} ({ago}); this cancel changed nothing."]
    else:
        lines = [f"Cancelled {run['id']}: nothing of it starts any more."]
    if nodes:
        verb = "was" if len(nodes) == 1 else "were"
        lines.append(f"In flight {verb}: {', '.join(nodes)}. Only that may still have effects.")
    elif outcome == "cancelled":
        lines.append("No node was in flight.")
    return lines
