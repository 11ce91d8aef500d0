"""Who may do what, who did what, and which executors live."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)

from app.domain.roles import ROLES
from app.store.schema.base import metadata, one_of, time_column

# The actions that make up a workflow's history of publications.
DEPLOYMENTS = ("version.published", "metronome.unpublished")

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("sha256", LargeBinary, nullable=False, unique=True),
    Column("user_id", Text, nullable=False),
    Column("organization_id", Text, nullable=False),
    Column("role", Text, nullable=False),
    time_column("created_at"),
    time_column("revoked_at", nullable=True),
    CheckConstraint(one_of("role", ROLES), name="api_keys_role"),
    Index("api_keys_by_organization", "organization_id", "user_id"),
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("metronome_id", Text),  # NULL for what concerns the whole organization
    Column("user_id", Text, nullable=False),
    Column("actor_user_id", Text, nullable=False),
    Column("actor_key_id", Text, nullable=False),
    Column("run_id", Text),
    Column("version_id", Text),
    Column("action", Text, nullable=False),
    Column("payload", JSON),
    time_column("created_at"),
    Index("audit_events_by_organization", "organization_id", "id"),
    Index("audit_events_by_action", "organization_id", "action", "id"),
    Index("audit_events_by_metronome", "metronome_id", "id"),
    Index(
        "audit_events_by_version",
        "version_id",
        "id",
        postgresql_where=text("version_id IS NOT NULL"),
    ),
    Index("audit_events_by_actor", "organization_id", "actor_user_id", "id"),
    # a workflow's publications, among the events of all its runs
    Index(
        "audit_events_deployments",
        "metronome_id",
        "id",
        postgresql_where=text(f"action IN ({', '.join(map(repr, DEPLOYMENTS))})"),
    ),
    Index("audit_events_by_run", "run_id", "id", postgresql_where=text("run_id IS NOT NULL")),
)

executors = Table(
    "executors",
    metadata,
    Column("id", Text, primary_key=True),
    Column("threads", Integer, nullable=False),
    time_column("started_at"),
    time_column("seen_at"),
    # it holds a lock while it lives: see store/liveness.py
    Column("lifeline", Boolean, nullable=False, server_default=text("false")),
)
