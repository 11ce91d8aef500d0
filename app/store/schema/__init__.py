"""The tables, as SQLAlchemy Core, so that migrations can be checked against them."""

from __future__ import annotations

from app.store.schema.access import DEPLOYMENTS, api_keys, audit_events, executors
from app.store.schema.base import metadata
from app.store.schema.runs import outbox, runs, steps
from app.store.schema.triggers import (
    EVENT_STATUSES,
    trigger_events,
    trigger_totals,
    triggers,
    webhooks,
)
from app.store.schema.workflows import (
    METRONOME_STATUSES,
    ON_LIMIT,
    VERSION_STATUSES,
    idempotency_keys,
    metronomes,
    version_revisions,
    versions,
)

__all__ = [
    "DEPLOYMENTS",
    "EVENT_STATUSES",
    "METRONOME_STATUSES",
    "ON_LIMIT",
    "VERSION_STATUSES",
    "api_keys",
    "audit_events",
    "executors",
    "idempotency_keys",
    "metadata",
    "metronomes",
    "outbox",
    "runs",
    "steps",
    "trigger_events",
    "trigger_totals",
    "triggers",
    "version_revisions",
    "versions",
    "webhooks",
]
