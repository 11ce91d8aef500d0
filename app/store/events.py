"""Audit events: who changed what, written by the statement that makes the change.

An event is never a statement of its own. A change puts ``insert(...)`` next to itself in a WITH, so
that both are one transaction, and an event is written exactly where something has changed.
"""

from __future__ import annotations

from app.domain.models import Actor
from app.ids import new_id


def insert(
    changed: str,
    action: str,
    *,
    metronome_id: str,
    run_id: str = "NULL",
    version_id: str = "NULL",
    payload: str = "NULL",
) -> str:
    """SQL that writes one event for the row of ``changed``, the name of a WITH query.

    ``changed`` has ``organization_id`` and ``user_id``. ``action`` is a literal such as
    ``run.created``; the other arguments are SQL expressions over the row. The statement is to be
    run with ``parameters(actor)``, and with one changed row at the most.
    """
    return f"""INSERT INTO audit_events (id, organization_id, metronome_id, user_id, actor_user_id,
        actor_key_id, run_id, version_id, action, payload)
    SELECT :event_id, organization_id, {metronome_id}, user_id, :actor_user_id, :actor_key_id,
        {run_id}, {version_id}, '{action}', {payload}
    FROM {changed}"""


def parameters(actor: Actor) -> dict[str, str]:
    """What ``insert`` needs to know of the one who asks, with an id for the event."""
    return {
        "event_id": new_id("evt"),
        "actor_user_id": actor.user_id,
        "actor_key_id": actor.key_id,
    }
