"""Definitions in files, and their faults in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO

import click

from app.cli import tables
from app.cli.client import ApiError

_TOLD = {
    "invalid_definition": "the definition is not valid",
    "not_publishable": "the definition can't be published",
}


def read(file: BinaryIO) -> dict[str, Any]:
    """The JSON object that a file holds. Raises ClickException where it holds none."""
    try:
        document = json.loads(file.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file.name} is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise click.ClickException(f"{file.name} is not JSON: {error.msg} at {where}") from None
    except (RecursionError, ValueError):  # the latter where an integer has too many digits
        message = "is nested too deeply, or holds a number that is too long"
        raise click.ClickException(f"{file.name} {message}") from None
    except OSError as error:
        raise click.ClickException(f"can't read {file.name}: {error.strerror}") from None
    if not isinstance(document, dict):
        raise click.ClickException(f"{file.name} must hold a JSON object")
    return document


def definition(file: BinaryIO) -> dict[str, Any]:
    """The definition in a file, which may be that of a whole workflow."""
    document = read(file)
    inner = document.get("definition")
    return inner if isinstance(inner, dict) else document


def with_faults(error: ApiError, body: Mapping[str, Any]) -> ApiError:
    """``error`` with all its faults, one a line, where the server named their fields."""
    if not isinstance(error.details, dict):
        return error
    faults = [
        f"  {tables.plain(field)}{_node(field, body)}: {tables.plain(message)}"
        for field, messages in error.details.items()
        if isinstance(messages, list)
        for message in messages
    ]
    if not faults:
        return error
    told = _TOLD.get(error.code, "the workflow was refused")
    return ApiError("\n".join([f"{told}:", *faults]), error.status, error.code, error.details)


def _node(field: str, body: Mapping[str, Any]) -> str:
    """Which node the path ``definition.nodes.2.kind`` leads to: `` (ship)``."""
    parts = field.split(".")
    if parts[:2] != ["definition", "nodes"] or len(parts) < 3 or not parts[2].isdigit():
        return ""
    if not isinstance(body.get("definition"), dict):
        return ""
    node = body["definition"]["nodes"][int(parts[2])]
    id = node.get("id") if isinstance(node, dict) else None
    return f" ({tables.plain(id)})" if isinstance(id, str) else ""
