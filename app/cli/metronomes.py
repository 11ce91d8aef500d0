"""``metronome metronomes``: list and create workflows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import click

from app.cli import tables
from app.cli.client import ApiError, Client, connected, print_json
from app.cli.definition_files import read, with_faults


@click.group()
def metronomes() -> None:
    """List and create workflows."""


@metronomes.command("list")
@click.option("--archived", is_flag=True, help="The archived ones as well.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0, help="How many to pass over.")
@connected
def list_metronomes(api: Client, as_json: bool, archived: bool, limit: int, offset: int) -> None:
    """List workflows, newest first."""
    query = {"limit": limit, "offset": offset or None}
    answer = api.get("metronomes", **query, includeArchived="true" if archived else None)
    if as_json:
        print_json(answer.body)
    elif not answer.data:
        click.echo("There is no workflow here: metronome metronomes create --file FILE")
    else:
        tables.show(tables.console(), tables.metronomes(answer.data))
    if answer.body["has_more"] and not as_json:
        click.echo(f"There are more: --offset {offset + limit}")


@metronomes.command("create")
@click.option("--file", required=True, type=click.File("rb"), help="JSON; - is standard input.")
@click.option("--name", help="Its name; else that in the file, else the file's own.")
@connected
def create_metronome(api: Client, as_json: bool, file: BinaryIO, name: str | None) -> None:
    """Create a workflow from a file.

    The file holds a definition, {"nodes": [...], "edges": [...]}, or what the API takes:
    {"name": ..., "definition": ..., "description": ...}.
    """
    body = _body(read(file), file.name, name)
    try:
        answer = api.post("metronomes", body=body)
    except ApiError as error:
        raise with_faults(error, body) from None
    if as_json:
        print_json(answer.body)
    else:
        click.echo(f"Created {answer.data['id']}: {tables.plain(answer.data['name'])}")


def _body(document: dict[str, Any], file_name: str, name: str | None) -> dict[str, Any]:
    """What the API is to be sent."""
    if "definition" not in document:
        if not document.keys() & {"nodes", "edges"}:
            raise click.ClickException(f"{file_name} holds neither nodes nor a definition")
        document = {"definition": document, "name": document.get("name")}
    stem = "" if file_name.startswith("<") else Path(file_name).stem
    chosen = name or document.get("name") or stem
    if not chosen:
        raise click.UsageError("give the workflow a name: --name")
    return {**document, "name": chosen}
