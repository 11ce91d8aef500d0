"""The command that deletes old runs; it works on the database, for all organizations."""

from __future__ import annotations

import click
import orjson

from app.cli.database import database
from app.services import purges as service


@click.command()
@click.option(
    "--days",
    required=True,
    type=click.IntRange(1, 36_500),
    help="Runs that ended more than so many days ago.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def purge(days: int, as_json: bool) -> None:
    """Delete runs that ended long ago, for good.

    Their steps and nested runs go with them, and so do audit and trigger events of that age whose
    run is gone. It may run while everything else does, and may be interrupted.
    """
    with database() as db:
        gone = service.purge(db, days=days)
    if as_json:
        counts = {
            "runs": gone.runs,
            "auditEvents": gone.audit_events,
            "triggerEvents": gone.trigger_events,
        }
        click.echo(orjson.dumps(counts, option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo(
            f"deleted {gone.runs:,} runs, {gone.audit_events:,} audit events,"
            f" {gone.trigger_events:,} trigger events"
        )
