"""Whether the workflows that a definition names exist, and end: none may run inside of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from app.domain.forms import body_of, config_of
from app.domain.issues import Issue
from app.domain.models import Actor
from app.domain.publishable import Level, Sound
from app.store import naming
from app.store.naming import Named

MAX_DEPTH = 10  # runs below the first one, as the executor has it
_MOST = 200  # workflows of one level that are looked at, below those that the definition names
_SHOWN = 5  # workflows of a circle in a message


@dataclass(frozen=True, slots=True)
class Reference:
    """How a node names a workflow: by id, or else by name."""

    id: str | None
    name: str | None

    @property
    def shown(self) -> str:
        """The id or name, for a message."""
        return (self.id or self.name or "")[:100]


def reference(config: Mapping[str, Any]) -> Reference | None:
    """What a config names; None where bindings decide that, or nothing does."""
    id, name = config.get("workflowId") or None, config.get("workflowName") or None
    wanted = id or name
    if not isinstance(wanted, str) or "{{" in wanted:
        return None
    return Reference(wanted, None) if id else Reference(None, wanted)


def faults(
    connection: Connection, actor: Actor, metronome_id: str | None, sound: Sound
) -> Iterator[Issue]:
    """What is wrong with the workflows that the definition of ``metronome_id`` names."""
    wanted = [
        (node, found)
        for node in sound.nodes()
        if node.kind == "metronome" and (found := reference(node.config)) is not None
    ]
    if not wanted:
        return
    family = _Family(_look_up(connection, actor, [found for _, found in wanted]), metronome_id)
    told = {found: family.fault(found) for _, found in wanted}
    for node, found in wanted:
        if (fault := told[found]) is not None:
            below = "config.workflowId" if found.id else "config.workflowName"
            yield sound.issue(*fault, node, below)


def _look_up(connection: Connection, actor: Actor, wanted: Iterable[Reference]) -> list[Named]:
    """All workflows that are named, and those that these name, level by level."""
    found: dict[str, Named] = {}
    asked: set[Reference] = set()
    new = list(dict.fromkeys(wanted))
    for _ in range(MAX_DEPTH + 1):
        if not new:
            break
        asked.update(new)
        level = naming.find(
            connection,
            actor.organization_id,
            {one.id for one in new if one.id},
            {one.name for one in new if one.name},
        )
        found |= {workflow.id: workflow for workflow in level}
        below = dict.fromkeys(one for workflow in level for one in _references(workflow))
        new = [one for one in below if one not in asked][:_MOST]
    return list(found.values())


def _references(workflow: Named) -> Iterator[Reference]:
    for node in workflow.nodes:
        if (found := reference(config_of(body_of(node)))) is not None:
            yield found


class _Family:
    """The workflows that were found, and which of them runs which."""

    def __init__(self, workflows: Iterable[Named], own: str | None) -> None:
        """``own`` is the workflow itself, whose definition is only about to be published."""
        self._own = own
        self._by_id = {workflow.id: workflow for workflow in workflows}
        self._by_name: dict[str, list[Named]] = {}
        for workflow in self._by_id.values():
            if not workflow.archived:
                self._by_name.setdefault(workflow.name, []).append(workflow)
        self._below = {id: self._named_by(one) for id, one in self._by_id.items()}
        self._depths = self._ending()

    def fault(self, wanted: Reference) -> tuple[Level, str, str] | None:
        """What is wrong with a reference: level, code and message."""
        meant = self._meant(wanted)
        if not meant:
            return "error", "unknown_workflow", f"There is no workflow '{wanted.shown}'."
        if len(meant) > 1:
            message = f"There are several workflows '{wanted.shown}'; use workflowId."
            return "error", "ambiguous_workflow", message
        (workflow,) = meant
        if workflow.archived:
            return "error", "archived_workflow", f"The workflow '{wanted.shown}' is archived."
        if workflow.id not in self._depths:
            message = f"A workflow would run inside of itself: {self._circle(workflow.id)}."
            return "error", "recursive_workflow", message
        if self._depths[workflow.id] > MAX_DEPTH:
            message = f"Runs are nested {MAX_DEPTH} deep at most, and this goes deeper."
            return "error", "nested_too_deep", message
        if not workflow.published:
            message = f"The workflow '{wanted.shown}' is not published: its draft would run."
            return "warning", "workflow_not_published", message
        return None

    def _meant(self, wanted: Reference) -> list[Named]:
        if wanted.id is not None:
            found = self._by_id.get(wanted.id)
            return [] if found is None else [found]
        return self._by_name.get(wanted.name or "", [])

    def _named_by(self, workflow: Named) -> dict[str, None]:
        """The ids of the workflows that one runs, as far as they are known; in their order."""
        if workflow.id == self._own:  # it is above all of them, whatever it runs now
            return {workflow.id: None}
        meant = [self._meant(one) for one in _references(workflow)]
        return {found[0].id: None for found in meant if len(found) == 1}

    def _ending(self) -> dict[str, int]:
        """How many runs there are from a workflow down; without those that never end."""
        above: dict[str, list[str]] = {id: [] for id in self._below}
        for id, below in self._below.items():
            for one in below:
                above[one].append(id)
        left = {id: len(below) for id, below in self._below.items()}
        free = [id for id, count in left.items() if count == 0]
        depths: dict[str, int] = {}
        while free:
            id = free.pop()
            depths[id] = 1 + max((depths[one] for one in self._below[id]), default=0)
            for one in above[id]:
                left[one] -= 1
                if left[one] == 0:
                    free.append(one)
        return depths

    def _circle(self, id: str) -> str:
        """The names of the workflows from one that never ends to where it comes round."""
        path: dict[str, None] = {}
        while id not in path and id != self._own:
            path[id] = None
            id = next(one for one in self._below[id] if one not in self._depths)
        names = [self._by_id[one].name[:60] for one in (*path, id)]
        return " -> ".join(names if len(names) <= _SHOWN else [*names[:_SHOWN], "..."])
