"""``metronome schedules``: when workflows start runs by themselves."""

from __future__ import annotations

import click

from app.cli import tables
from app.cli.client import Client, connected, print_json


@click.group()
def schedules() -> None:
    """List when published workflows start runs by themselves."""


@schedules.command("list")
@click.option("--metronome", help="Only those of the workflow with this id.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0, help="How many to pass over.")
@connected
def list_schedules(
    api: Client, as_json: bool, metronome: str | None, limit: int, offset: int
) -> None:
    """List the schedules and when they are due next, the newest first."""
    answer = api.get("schedules", metronomeId=metronome, limit=limit, offset=offset or None)
    if as_json:
        print_json(answer.body)
        return
    if not answer.data:
        click.echo("Nothing that is published has a schedule.")
    for one in answer.data:
        due = one["nextDueAt"] or ("paused" if one["paused"] else "over")
        when = one["cronExpression"] or one["scheduledTime"] or f"every {one['intervalSeconds']} s"
        zone = one["scheduleTimezone"]
        click.echo(f"{tables.plain(one['metronomeId'])}  {tables.plain(one['nodeId'])}")
        click.echo(f"  {tables.plain(when)} ({tables.plain(zone)}), next: {due}")
    if answer.body["has_more"]:
        click.echo(f"There are more: --offset {offset + limit}")
