"""The commands for API keys; they work on the database, so that a first key can be made."""

from __future__ import annotations

from typing import Any

import click
import orjson

from app.cli.database import database
from app.clock import iso
from app.domain.models import ApiKey
from app.domain.roles import ROLES
from app.services import keys as service

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command()
@click.option("--name", required=True, help="What the key is for.")
@click.option("--user", required=True, help="The user that it stands for.")
@click.option("--organization", default="default", show_default=True, help="Their organization.")
@click.option(
    "--role", type=click.Choice(ROLES), default="admin", show_default=True, help="What it may do."
)
@_json
def create(name: str, user: str, organization: str, role: str, as_json: bool) -> None:
    """Create an API key, and show it this once.

    A viewer reads. A watchdog cancels runs as well. An operator also pauses, resumes, retries and
    approves them. An editor also starts runs and changes workflows. An admin may do everything.
    """
    for option, value in (("--name", name), ("--user", user), ("--organization", organization)):
        if not (value.isprintable() and value.strip() and len(value) <= 200):
            raise click.BadParameter(
                "must be 1 to 200 printable characters, not just spaces", param_hint=option
            )
    with database() as db:
        key, secret = service.create_key(
            db, name=name, user_id=user, organization_id=organization, role=role
        )
    if as_json:
        _print_json({**_dump(key), "key": secret})
    else:
        click.echo(secret)
        click.echo(
            f"{key.id} is for {user} of {organization}, with the role {role}."
            " It can't be shown again.",
            err=True,
        )


@keys.command("list")
@_json
def list_keys(as_json: bool) -> None:
    """List all API keys, without their secrets."""
    with database() as db:
        found = service.list_keys(db)
    if as_json:
        _print_json([_dump(key) for key in found])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "name", "key", "user", "organization", "role", "created", "revoked")
    for key in found:
        begins = f"{key.prefix}..."
        created, revoked = iso(key.created_at) or "", iso(key.revoked_at) or ""
        table.add_row(
            key.id,
            key.name,
            begins,
            key.user_id,
            key.organization_id,
            key.role,
            created[:19],
            revoked[:19],
        )
    Console().print(table)


@keys.command()
@click.argument("key_id", metavar="ID")
@_json
def revoke(key_id: str, as_json: bool) -> None:
    """Revoke the API key with this ID, from now on and for ever."""
    with database() as db:
        key = service.revoke_key(db, key_id)
    if as_json:
        _print_json(_dump(key))
    else:
        click.echo(f"{key.id} ({key.name}) is revoked")


def _dump(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "userId": key.user_id,
        "organizationId": key.organization_id,
        "role": key.role,
        "createdAt": iso(key.created_at),
        "revokedAt": iso(key.revoked_at),
    }


def _print_json(value: Any) -> None:
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
