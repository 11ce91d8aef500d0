"""``metronome versions``: save, compare and publish versions of a workflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import click

from app.cli import tables
from app.cli.client import Answer, ApiError, Client, connected, print_json
from app.cli.definition_files import definition, with_faults


@click.group()
def versions() -> None:
    """Save, compare and publish versions of a workflow.

    A version is named by its id or by its label, such as v3.
    """


_LIMIT = click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
_OFFSET = click.option("--offset", type=click.IntRange(0), default=0, help="How many to pass over.")
_DESCRIPTION = click.option("--description", help="What is to be said of it.")


def _of_a_workflow(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a workflow to act on, and the client to do it."""
    with_metronome: Callable[..., None] = click.argument("metronome_id")(connected(command))
    return with_metronome


@versions.command("list")
@_of_a_workflow
@_LIMIT
@_OFFSET
def list_versions(api: Client, as_json: bool, metronome_id: str, limit: int, offset: int) -> None:
    """List the versions, newest first."""
    answer = api.get("metronomes", metronome_id, "versions", limit=limit, offset=offset or None)
    if as_json:
        print_json(answer.body)
        return
    if answer.data:
        tables.show(tables.console(), tables.versions(answer.data))
    else:
        click.echo("There is no version yet: metronome versions save METRONOME_ID")
    _more(answer, offset + limit)


@versions.command("save")
@_of_a_workflow
@click.option("--file", type=click.File("rb"), help="A definition as JSON; else the draft.")
@_DESCRIPTION
def save_version(
    api: Client, as_json: bool, metronome_id: str, file: BinaryIO | None, description: str | None
) -> None:
    """Save the draft, or the definition in a file, as the next version."""
    body = _body(description=description, definition=definition(file) if file else None)
    answer = _sent(api, body, "metronomes", metronome_id, "versions")
    _tell(answer, as_json, f"Saved {answer.data['label']}: {answer.data['id']}")


@versions.command("publish")
@_of_a_workflow
@click.argument("version", required=False)
@_DESCRIPTION
def publish(
    api: Client, as_json: bool, metronome_id: str, version: str | None, description: str | None
) -> None:
    """Publish a version; without one, the draft as it stands."""
    version_id = None if version is None else _id(api, metronome_id, version)
    body = _body(active=True, versionId=version_id, description=description)
    answer = _sent(api, body, "metronomes", metronome_id, "publish")
    label = f"v{answer.data['publishedVersionNumber']}"
    _tell(answer, as_json, f"Published {label}: new runs of {metronome_id} use it.")


@versions.command("unpublish")
@_of_a_workflow
@click.option("--description", help="Why.")
def unpublish(api: Client, as_json: bool, metronome_id: str, description: str | None) -> None:
    """Take back what is published; its triggers start nothing more, and runs go on."""
    body = _body(description=description)
    answer = api.post("metronomes", metronome_id, "unpublish", body=body)
    _tell(answer, as_json, f"Nothing of {metronome_id} is published now.")


@versions.command("diff")
@_of_a_workflow
@click.argument("base")
@click.argument("target")
def diff_versions(api: Client, as_json: bool, metronome_id: str, base: str, target: str) -> None:
    """Show what has changed from the version BASE to the version TARGET."""
    base_id, target_id = (_id(api, metronome_id, one) for one in (base, target))
    answer = api.get(
        "metronomes", metronome_id, "versions", target_id, "diff", againstVersionId=base_id
    )
    lines = [line for part in ("nodes", "edges") for line in _changes(part[:-1], answer.data[part])]
    _tell(answer, as_json, "\n".join(lines) or "They are the same.")


@versions.command("delete")
@_of_a_workflow
@click.argument("version")
def delete_version(api: Client, as_json: bool, metronome_id: str, version: str) -> None:
    """Delete a version: it takes no new runs, and those that have begun go on."""
    version_id = _id(api, metronome_id, version)
    answer = api.delete("metronomes", metronome_id, "versions", version_id)
    _tell(answer, as_json, f"Deleted {version_id}.")


@versions.command("history")
@_of_a_workflow
@_LIMIT
@_OFFSET
def history(api: Client, as_json: bool, metronome_id: str, limit: int, offset: int) -> None:
    """List what was published and unpublished, newest first."""
    answer = api.get("metronomes", metronome_id, "deployments", limit=limit, offset=offset or None)
    if as_json:
        print_json(answer.body)
        return
    if answer.data:
        tables.show(tables.console(), tables.deployments(answer.data))
    else:
        click.echo("Nothing was ever published.")
    _more(answer, offset + limit)


def _body(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _sent(api: Client, body: Mapping[str, Any], *path: str) -> Answer:
    try:
        return api.post(*path, body=body)
    except ApiError as error:
        raise with_faults(error, body) from None


def _tell(answer: Answer, as_json: bool, told: str) -> None:
    if as_json:
        print_json(answer.body)
    else:
        click.echo(told)


def _more(answer: Answer, offset: int) -> None:
    if answer.body["has_more"]:
        click.echo(f"There are more: --offset {offset}")


def _id(api: Client, metronome_id: str, version: str) -> str:
    """The id of a version that is named by its id or its label."""
    if not (version.startswith("v") and version[1:].isdecimal()):
        return version
    cursor = None
    while True:
        page = api.get("metronomes", metronome_id, "versions", limit=100, cursor=cursor)
        for one in page.data:
            if one["label"] == version:
                return str(one["id"])
        cursor = page.body["next_cursor"]
        if cursor is None:
            raise click.ClickException(f"there is no version {version} of {metronome_id}")


def _changes(noun: str, changes: Mapping[str, Any]) -> list[str]:
    lines = [f"+ {noun} {_name(one)}" for one in changes["added"]]
    lines += [f"- {noun} {_name(one)}" for one in changes["removed"]]
    for one in changes["changed"]:
        fields = tables.plain(", ".join(one["fields"]))
        lines.append(f"~ {noun} {_name(one['after'])}: {fields}")
    return lines


def _name(one: Mapping[str, Any]) -> str:
    """A node by its id, an edge by what it joins."""
    if "source" in one:
        return tables.plain(f"{one['source']} -> {one['target']}")
    return tables.plain(one["id"])
