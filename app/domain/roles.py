"""What an API key may do, by its role."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Permission(StrEnum):
    """What a request needs."""

    READ = "read"
    CANCEL = "cancel"
    OPERATE = "operate"  # pause, resume, retry, approve
    RUN = "run"  # start runs, by hand or by a trigger
    EDIT = "edit"  # workflows and versions, publish them, delete runs
    ADMIN = "admin"  # give workflows to others


# What a permission lets its holder do, for messages and help: "may not ...".
TOLD: Final[Mapping[Permission, str]] = {
    Permission.READ: "read",
    Permission.CANCEL: "cancel runs",
    Permission.OPERATE: "pause, resume, retry or approve runs",
    Permission.RUN: "start runs",
    Permission.EDIT: "change or publish workflows, or delete runs",
    Permission.ADMIN: "give workflows to others",
}

_WATCH: Final = frozenset({Permission.READ, Permission.CANCEL})
_OPERATE: Final = _WATCH | {Permission.OPERATE}

# A watchdog can cancel runs and nothing else, so that its key can be given to a machine.
PERMISSIONS: Final[Mapping[str, frozenset[Permission]]] = {
    "viewer": frozenset({Permission.READ}),
    "watchdog": _WATCH,
    "operator": _OPERATE,
    "editor": _OPERATE | {Permission.RUN, Permission.EDIT},
    "admin": frozenset(Permission),
}
ROLES: Final = tuple(PERMISSIONS)
