"""Callbacks: remote sides end the steps that they were given, or tell that they are still at it."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from app.db import Database
from app.domain.errors import Unauthorized
from app.domain.jsonvalue import dumps
from app.domain.lifecycle import COMPLETED, FAILED
from app.domain.models import Step
from app.ids import step_id as make_step_id
from app.store import callbacks
from app.store.callbacks import CallbackOutcome, Place

_STEP_ID = re.compile(r"step_[A-Za-z0-9_-]{1,100}_([0-9]{6,9})")
_NONE = hashlib.sha256(b"").hexdigest()  # compared with where a step has no token
_ROOM = 1_000  # bytes of the JSON round an output


@dataclass(frozen=True, slots=True)
class Ticket:
    """A step, and the proof that its caller was given it to work on."""

    place: Place
    sha256: str


def refused() -> Unauthorized:
    """The one answer to a wrong token, and to a step that is not there: both look the same."""
    return Unauthorized(
        "this is no valid callback token of this step", code="invalid_callback_token"
    )


def admit(db: Database, metronome_id: str, run_id: str, step_id: str, token: str) -> Ticket:
    """The ticket of whoever has the step's callback token. Raises Unauthorized."""
    found = _STEP_ID.fullmatch(step_id)
    seq = int(found[1]) if found else 0
    place = Place(metronome_id, run_id, seq)
    sha256 = hashlib.sha256(token.encode(errors="replace")).hexdigest()
    known = None
    if make_step_id(run_id, seq) == step_id:
        known = db.read(lambda connection: callbacks.token_sha256(connection, place))
    if not hmac.compare_digest(known or _NONE, sha256) or known is None:
        raise refused()
    return Ticket(place, sha256)


def complete(
    db: Database, ticket: Ticket, output: Mapping[str, Any], *, max_bytes: int
) -> tuple[Step, CallbackOutcome]:
    """The work is done; ``output`` may have ``max_bytes`` as JSON.

    Raises ValueRefused, which names the field, or Unauthorized where the step is gone.
    """
    dumps(output, "output", max_bytes=max_bytes)
    return _record(db, ticket, {"status": COMPLETED, "output": output}, max_bytes + _ROOM)


def fail(
    db: Database, ticket: Ticket, error: str, *, retryable: bool
) -> tuple[Step, CallbackOutcome]:
    """The work has failed; ``retryable`` says whether trying again may help."""
    result = {"status": FAILED, "error": error, "retryable": retryable}
    return _record(db, ticket, result, 10 * len(error) + _ROOM)


def beat(db: Database, ticket: Ticket) -> tuple[str, str]:
    """The work goes on; the status of the step, and that of the run. Raises Unauthorized."""
    place, sha256 = ticket.place, ticket.sha256
    found = db.read(lambda connection: callbacks.beat(connection, place, sha256))
    if found is None:
        raise refused()
    return found


def _record(
    db: Database, ticket: Ticket, result: Mapping[str, Any], max_bytes: int
) -> tuple[Step, CallbackOutcome]:
    kept = {name: value for name, value in result.items() if name != "retryable"}
    texts = {
        "result": dumps(result, "result", max_bytes=max_bytes, max_depth=66),
        "late": dumps(kept, "result", max_bytes=max_bytes, max_depth=66),
    }

    def record(connection: Connection) -> tuple[Step, CallbackOutcome] | None:
        return callbacks.record(connection, ticket.place, ticket.sha256, **texts)

    # Sent once more where the connection was lost meanwhile: the second one is a duplicate.
    found = db.read(record)
    if found is None:
        raise refused()
    return found
