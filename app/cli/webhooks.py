"""The commands for webhooks; they work on the database, as those for API keys do."""

from __future__ import annotations

from typing import Any

import click

from app.cli.client import print_json
from app.cli.database import database
from app.clock import iso
from app.services import webhooks as service
from app.store.webhooks import Webhook

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def webhooks() -> None:
    """Create, list and revoke the secrets of webhooks."""


@webhooks.command()
@click.option("--name", required=True, help="What it is for.")
@click.option("--organization", default="default", show_default=True, help="Whose it is.")
@click.option("--user", default="admin", show_default=True, help="Who makes it.")
@click.option("--secret", help="A secret that both sides have already; else one is made.")
@_json
def create(name: str, organization: str, user: str, secret: str | None, as_json: bool) -> None:
    """Create a webhook, and show its secret.

    Give GitHub the secret, and the URL that is shown behind the address of this server.
    """
    for option, value in (("--name", name), ("--user", user), ("--organization", organization)):
        if not (value.isprintable() and value.strip() and len(value) <= 200):
            raise click.BadParameter(
                "must be 1 to 200 printable characters, not just spaces", param_hint=option
            )
    with database() as db:
        made, secret = service.create(
            db, name=name, user_id=user, organization_id=organization, secret=secret
        )
    path = f"/v1/metronomes/github/inbound?webhook={made.id}"
    if as_json:
        print_json({**_dump(made), "secret": secret, "path": path})
    else:
        click.echo(secret)
        click.echo(f"{made.id} is for {organization}. Its path is {path}", err=True)
        click.echo("Use it with ?webhook=: no other webhook's secret is tried then.", err=True)


@webhooks.command("list")
@click.option("--organization", help="Only those of this one.")
@_json
def list_webhooks(organization: str | None, as_json: bool) -> None:
    """List webhooks, without their secrets."""
    with database() as db:
        found = service.every(db, organization)
    if as_json:
        print_json([_dump(one) for one in found])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "name", "organization", "user", "created", "revoked")
    for one in found:
        created, revoked = iso(one.created_at) or "", iso(one.revoked_at) or ""
        table.add_row(
            one.id, one.name, one.organization_id, one.user_id, created[:19], revoked[:19]
        )
    Console().print(table)


@webhooks.command()
@click.argument("webhook_id", metavar="ID")
@_json
def revoke(webhook_id: str, as_json: bool) -> None:
    """Revoke the webhook with this ID, from now on and for ever."""
    with database() as db:
        revoked = service.revoke(db, webhook_id)
    if as_json:
        print_json(_dump(revoked))
    else:
        click.echo(f"{revoked.id} ({revoked.name}) is revoked")


def _dump(one: Webhook) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "organizationId": one.organization_id,
        "userId": one.user_id,
        "createdAt": iso(one.created_at),
        "revokedAt": iso(one.revoked_at),
    }
