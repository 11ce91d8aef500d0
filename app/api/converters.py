"""What may stand in a path in the place of an id."""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.routing import UnicodeConverter

# What stands below /v1/metronomes and is no workflow: so that other methods there are 405.
NAMES = ("audit-events", "node-schemas", "trigger-events", "validate")


class Workflow(UnicodeConverter):
    """The id of a workflow, where a path ends with it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.regex = f"(?!(?:{'|'.join(NAMES)})$){self.regex}"


def install(app: Flask) -> None:
    """Let the paths of ``app`` say ``<workflow:metronomeId>``."""
    app.url_map.converters["workflow"] = Workflow
