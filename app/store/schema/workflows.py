"""Workflows: their drafts and versions."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from app.store.schema.base import metadata, one_of, time_column

METRONOME_STATUSES = ("draft", "active", "paused", "archived")
VERSION_STATUSES = ("saved", "published", "archived")
ON_LIMIT = ("queue", "reject", "cancel_oldest")

metronomes = Table(
    "metronomes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("status", Text, nullable=False),
    Column("definition", JSON, nullable=False),
    Column("trigger_summary", Text),
    # the version that a run of the draft uses; NULL while the draft has not been run since its save
    Column("draft_version_id", Text),
    Column("published_version_id", Text),
    # counts the changes: the entity tag
    Column("revision", BigInteger, nullable=False, server_default=text("1")),
    # how many runs of a group may be at work at once (NULL: any), what becomes of one too many,
    # and the expression that tells a run's group (NULL: all runs are one)
    Column("max_concurrent_runs", Integer),
    Column("on_limit", Text, nullable=False, server_default=text("'queue'")),
    Column("concurrency_key", Text),
    time_column("created_at"),
    time_column("updated_at"),
    CheckConstraint(one_of("status", METRONOME_STATUSES), name="metronomes_status"),
    CheckConstraint(one_of("on_limit", ON_LIMIT), name="metronomes_on_limit"),
    CheckConstraint("max_concurrent_runs >= 1", name="metronomes_limit"),
    Index("metronomes_by_organization", "organization_id", "id"),
    Index("metronomes_by_status", "organization_id", "status", "id"),
)

versions = Table(
    "versions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("metronome_id", Text, nullable=False),
    # NULL for what was only run, and never saved: it is in no list
    Column("version", Integer),
    Column("description", Text),
    Column("status", Text, nullable=False),
    Column("definition", JSON, nullable=False),
    # counts the changes of the definition: see version_revisions
    Column("revision", Integer, nullable=False, server_default=text("0")),
    Column("node_count", Integer, nullable=False),
    Column("edge_count", Integer, nullable=False),
    Column("trigger_summary", Text),
    time_column("created_at"),
    time_column("updated_at"),
    time_column("published_at", nullable=True),
    UniqueConstraint("metronome_id", "version", name="versions_number"),
    CheckConstraint(one_of("status", VERSION_STATUSES), name="versions_status"),
    Index(
        "versions_published",
        "metronome_id",
        unique=True,
        postgresql_where=text("status = 'published'"),
    ),
)

# What a version's definition was before it was changed: runs keep that with which they began.
version_revisions = Table(
    "version_revisions",
    metadata,
    Column("version_id", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("definition", JSON, nullable=False),
    PrimaryKeyConstraint("version_id", "revision", name="version_revisions_pkey"),
)

# A request that creates something, and the id that was set apart for that: sent again with the
# same key, it creates the same thing.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("organization_id", Text, nullable=False),
    Column("scope", Text, nullable=False),  # such as versions:met_1
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),  # SHA-256 of the request
    Column("resource_id", Text, nullable=False),
    time_column("created_at"),
    PrimaryKeyConstraint("organization_id", "scope", "key", name="idempotency_keys_pkey"),
    Index("idempotency_keys_by_age", "created_at"),
)
