"""Whether a definition can be saved, or published: every fault, none as an exception."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from app.domain.connectors import Connector
from app.domain.errors import Invalid
from app.domain.issues import Issue
from app.domain.models import Actor
from app.domain.shape import check_shape
from app.nodes import REGISTRY

_SHOWN = 3  # faults that the message tells; the details have all


def check_publishable(
    connection: Connection,
    actor: Actor,
    metronome_id: str | None,
    definition: object,
    connectors: Mapping[str, Connector],
) -> list[Issue]:
    """Every fault of ``definition``, errors first; it can be published where no error is among
    them.

    ``metronome_id`` is the workflow that it is to be the definition of, None where there is none
    yet; ``connectors`` are those of the deployer by name (in the API: ``context.connectors()``).
    Takes any JSON value as definition. Reads the workflows that it names.
    """
    return check_shape(definition, REGISTRY)


def demand_publishable(
    connection: Connection,
    actor: Actor,
    metronome_id: str | None,
    definition: dict[str, Any],
    connectors: Mapping[str, Connector],
) -> None:
    """Raise Invalid with the code ``not_publishable`` where ``check_publishable`` finds an error.

    Its details are the faults by field, as all errors have them.
    """
    issues = check_publishable(connection, actor, metronome_id, definition, connectors)
    errors = [issue for issue in issues if issue.level == "error"]
    if errors:
        raise not_publishable(errors)


def not_publishable(errors: list[Issue]) -> Invalid:
    """The refusal to publish a definition with these faults."""
    details: dict[str, list[str]] = {}
    for issue in errors:
        details.setdefault(issue.field, []).append(issue.message)
    told = [
        f"node {issue.node_id}: {issue.message}" if issue.node_id else issue.message
        for issue in errors[:_SHOWN]
    ]
    if len(errors) > _SHOWN:
        told.append(f"and {len(errors) - _SHOWN} more")
    return Invalid(
        f"the definition can't be published: {'; '.join(told)}",
        code="not_publishable",
        details=details,
    )
