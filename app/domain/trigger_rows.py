"""What a published workflow listens for: its trigger nodes, as the rows that are looked up.

Only what stands outside of loops can start a run. Manual triggers listen for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.domain.graph import Node, parse

MANUAL: Final = "manual"
MANUAL_TEST: Final = "manual_test"
FUNCTION: Final = "function"
PERIODIC: Final = "periodic"

_SLUG = re.compile(r"[A-Za-z0-9_-]{1,100}")
_SLUG_FIELDS = ("slug", "functionSlug")


@dataclass(frozen=True, slots=True)
class NewTrigger:
    """A trigger node of what is published; ``slug`` is that of a function trigger.

    ``next_due_at`` is when a schedule is to start its first run; None: never, or no schedule.
    """

    node_id: str
    trigger_type: str
    slug: str | None
    config: Mapping[str, Any]
    next_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class SlugProblem:
    """What is wrong with the slug of a function trigger; ``field`` is below the node."""

    node_id: str
    field: str
    message: str


def type_of(node: Node) -> str:
    """The trigger type of a trigger node."""
    named = node.config.get("triggerType")
    return node.subtype or (named if isinstance(named, str) and named else MANUAL)


def slug_of(node: Node) -> str:
    """By what a function trigger is called: its config's slug, else the node's id."""
    for name in _SLUG_FIELDS:
        given = node.config.get(name)
        if given is not None and given != "":
            return given if isinstance(given, str) else ""
    return node.id


def is_slug(text: str) -> bool:
    """Whether ``text`` can be a slug: 1 to 100 letters, digits, ``-`` and ``_``."""
    return _SLUG.fullmatch(text) is not None


def triggers_of(definition: Mapping[str, Any]) -> list[Node]:
    """The trigger nodes that can start a run of a sound definition, in its order."""
    return [node for node in parse(definition).body(None).nodes.values() if node.kind == "trigger"]


def slug_problems(definition: Mapping[str, Any]) -> Iterator[SlugProblem]:
    """What keeps a sound definition's function triggers from being told apart."""
    owners: dict[str, str] = {}
    for node in triggers_of(definition):
        if type_of(node) != FUNCTION:
            continue
        slug = slug_of(node)
        if not is_slug(slug):
            message = (
                "A function trigger needs a slug of 1 to 100 letters, digits, - and _;"
                " without one its id would have to be such."
            )
            yield SlugProblem(node.id, "config.slug", message)
        elif slug in owners:
            message = f"The slug '{slug}' is that of the node '{owners[slug]}' too."
            yield SlugProblem(node.id, "config.slug", message)
        else:
            owners[slug] = node.id


def rows_of(
    definition: Mapping[str, Any],
    first_due: Callable[[Mapping[str, Any]], datetime | None],
) -> list[NewTrigger]:
    """What a definition that may be published listens for.

    ``first_due`` tells of the config of a schedule when it is due for the first time.
    """
    found = []
    for node in triggers_of(definition):
        kind = type_of(node)
        if kind == MANUAL:
            continue
        found.append(
            NewTrigger(
                node_id=node.id,
                trigger_type=kind,
                slug=slug_of(node) if kind == FUNCTION else None,
                config=node.config,
                next_due_at=first_due(node.config) if kind == PERIODIC else None,
            )
        )
    return found
