"""``metronome approvals``: what waits for a person."""

from __future__ import annotations

import click

from app.cli import tables
from app.cli.client import Client, connected, print_json


@click.group()
def approvals() -> None:
    """List what waits for a decision."""


@approvals.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0, help="How many to pass over.")
@connected
def list_approvals(api: Client, as_json: bool, limit: int, offset: int) -> None:
    """List the steps that wait for a decision, those of the oldest run first."""
    answer = api.get("approvals", limit=limit, offset=offset or None)
    if as_json:
        print_json(answer.body)
        return
    if not answer.data:
        click.echo("Nothing waits for a decision.")
    for one in answer.data:
        click.echo("\n".join(tables.approval(one)))
    if answer.data:
        click.echo("Decide: metronome runs approve (or reject) METRONOME RUN")
    if answer.body["has_more"]:
        click.echo(f"There are more: --offset {offset + limit}")
