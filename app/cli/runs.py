"""``metronome runs``: list and show runs; what can be done to one is in ``run_actions.py``."""

from __future__ import annotations

import click

from app.cli import run_actions, tables
from app.cli.client import Client, connected, print_json
from app.domain.lifecycle import RUN_STATUSES


@click.group()
def runs() -> None:
    """List and show runs, stop them, and let them go on."""


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


@runs.command("children")
@click.argument("metronome_id")
@click.argument("run_id")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0, help="How many to pass over.")
@connected
def list_children(
    api: Client, as_json: bool, metronome_id: str, run_id: str, limit: int, offset: int
) -> None:
    """List the runs that a run has started, newest first."""
    query = {"limit": limit, "offset": offset or None}
    answer = api.get("metronomes", metronome_id, "runs", run_id, "children", **query)
    if as_json:
        print_json(answer.body)
    elif not answer.data:
        click.echo("There are no such runs." if offset else "It has started no run.")
    else:
        tables.show(tables.console(), tables.runs(answer.data))
    if answer.body["has_more"] and not as_json:
        click.echo(f"There are more: --offset {offset + limit}")


for command in run_actions.COMMANDS:
    runs.add_command(command)
