"""What starts runs: the triggers of published workflows, and what has come for them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from app.store.schema.base import metadata, one_of, time_column

EVENT_STATUSES = ("matched", "ignored", "failed", "unauthorized")

# The trigger nodes of what is published just now. Publishing writes these rows, unpublishing
# deletes them.
triggers = Table(
    "triggers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("metronome_id", Text, nullable=False),
    Column("version_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),  # the owner, for whom its runs are
    Column("node_id", Text, nullable=False),
    Column("trigger_type", Text, nullable=False),
    Column("slug", Text),  # of a function trigger
    Column("config", JSON, nullable=False),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    time_column("next_due_at", nullable=True),  # of a schedule: when it is to start a run
    time_column("created_at"),
    Index("triggers_by_type", "organization_id", "trigger_type", "id"),
    Index("triggers_by_metronome", "metronome_id", "node_id", unique=True),
    Index(
        "triggers_by_slug",
        "metronome_id",
        "slug",
        unique=True,
        postgresql_where=text("slug IS NOT NULL"),
    ),
    Index("triggers_due", "next_due_at", postgresql_where=text("next_due_at IS NOT NULL")),
)

# Everything that was delivered, whatever it came to.
trigger_events = Table(
    "trigger_events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("metronome_id", Text),  # NULL where no workflow listens for such events
    Column("user_id", Text),
    Column("run_id", Text),
    Column("trigger_type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("source_event_id", Text),
    Column("summary", Text),
    Column("reason", Text),
    Column("payload", JSON, nullable=False),
    # a sample, with which somebody tried a trigger out: the event itself may still come
    Column("sample", Boolean, nullable=False, server_default=text("false")),
    # it was ignored for a reason that may have gone when the same event is delivered again
    Column("passing", Boolean, nullable=False, server_default=text("false")),
    time_column("created_at"),
    CheckConstraint(one_of("status", EVENT_STATUSES), name="trigger_events_status"),
    # lists are put together from one part for each status
    Index("trigger_events_by_organization", "organization_id", "status", "id"),
    Index("trigger_events_by_metronome", "metronome_id", "status", "id"),
    Index("trigger_events_by_organization_type", "organization_id", "trigger_type", "status", "id"),
    Index("trigger_events_by_metronome_type", "metronome_id", "trigger_type", "status", "id"),
    Index(
        "trigger_events_by_source",
        "organization_id",
        "trigger_type",
        "source_event_id",
        postgresql_where=text("source_event_id IS NOT NULL AND NOT sample"),
    ),
    # of the same event, delivered several times at once, one is recorded as ignored
    Index(
        "trigger_events_ignored_once",
        "organization_id",
        "trigger_type",
        "source_event_id",
        text("coalesce(metronome_id, '')"),
        unique=True,
        postgresql_where=text("status = 'ignored' AND source_event_id IS NOT NULL AND NOT sample"),
    ),
)

# The events of each workflow and type, counted as they come: there may be millions of them.
trigger_totals = Table(
    "trigger_totals",
    metadata,
    Column("metronome_id", Text, nullable=False),
    Column("trigger_type", Text, nullable=False),
    Column("organization_id", Text, nullable=False),
    *(
        Column(f"{status}_count", BigInteger, nullable=False, server_default=text("0"))
        for status in EVENT_STATUSES
    ),
    *(time_column(f"last_{status}_at", nullable=True) for status in EVENT_STATUSES),
    Column("last_event_id", Text),
    Column("last_matched_event_id", Text),
    Column("last_run_id", Text),
    PrimaryKeyConstraint("metronome_id", "trigger_type", name="trigger_totals_pkey"),
)

# The secrets with which senders of webhooks sign, or name themselves.
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("secret", Text, nullable=False),  # in the clear: signatures are made with it
    Column("sha256", LargeBinary, nullable=False, unique=True),
    time_column("created_at"),
    time_column("revoked_at", nullable=True),
    time_column("used_at", nullable=True),  # by a delivery that did not name it; to the minute
    # deliveries with a wrong signature that were recorded within this minute: not all of them are
    time_column("refused_at", nullable=True),
    Column("refused_count", Integer, nullable=False, server_default=text("0")),
    Index("webhooks_by_organization", "organization_id", "id"),
)
