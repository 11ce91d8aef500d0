"""A JSON answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from flask import Response


def answer(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """``body`` as a JSON answer."""
    return Response(orjson.dumps(body), status, headers, mimetype="application/json")
