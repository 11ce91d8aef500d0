"""Runs, their steps, and what connectors have to be told of them.

There is no foreign key from steps to runs: under load it costs a fifth to two fifths of the steps
a second, and the boundary statement locks the run's row anyway.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from app.domain import lifecycle
from app.store.schema.base import metadata, one_of, time_column

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("metronome_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("version_id", Text, nullable=False),
    # which of the version's definitions it runs: see version_revisions
    Column("version_revision", Integer, nullable=False, server_default=text("0")),
    Column("trigger_type", Text, nullable=False),
    Column("trigger_event_id", Text),
    # the trigger nodes at which it begins; NULL: those of its type
    Column("entry_nodes", JSON),
    Column("idempotency_key", Text),
    # the call of a function trigger that started it, where that may have another idempotency key
    Column("event_key", Text),
    Column("status", Text, nullable=False),
    Column("input", JSON, nullable=False),
    Column("output", JSON),
    Column("error", Text),
    Column("attempt_count", Integer, nullable=False, server_default=text("0")),
    Column("max_attempts", Integer, nullable=False, server_default=text("1")),
    # whether the next claim begins a new attempt, or goes on with the one that has begun
    Column("attempt_due", Boolean, nullable=False, server_default=text("true")),
    Column("timeout_ms", BigInteger),
    Column("attached_project_id", Text),
    Column("attached_ticket_id", Text),
    # where its workflow limits how many may be at work: its group there, and whether it has a place
    # in it; it keeps that until it has ended and nobody holds it any more
    Column("concurrency_key", Text),
    Column("admitted", Boolean, nullable=False, server_default=text("true")),
    # a nested run: the run and the step that started it, and the run at the top of the tree
    Column("parent_run_id", Text),
    Column("parent_seq", Integer),
    Column("root_run_id", Text),
    Column("depth", Integer, nullable=False, server_default=text("0")),
    # something that a parked step waits for has happened since an executor last looked
    Column("signalled", Boolean, nullable=False, server_default=text("false")),
    # paused because a node that is not safe to replay may have run
    Column("in_doubt", Boolean, nullable=False, server_default=text("false")),
    # a person has agreed to run again what was lost up to this step
    Column("confirmed_seq", Integer, nullable=False, server_default=text("0")),
    Column("paused_by", Text),  # the run whose pause paused this one: itself, or one above it
    # how often in a row the run was taken over from an executor that was lost
    Column("takeovers", Integer, nullable=False, server_default=text("0")),
    # steps up to base_seq belong to what came before a retry from the start, and so do attempts
    # of nodes up to base_attempt
    Column("base_seq", Integer, nullable=False, server_default=text("0")),
    Column("base_attempt", Integer, nullable=False, server_default=text("0")),
    # when an executor may take the run; while one holds it, the end of its lease; infinity where
    # only a signal can wake it
    time_column("due_at", nullable=True),
    Column("lease_token", Text),
    Column("locked_by", Text),
    time_column("locked_at", nullable=True),
    time_column("queued_at"),
    time_column("started_at", nullable=True),
    time_column("deadline_at", nullable=True),
    time_column("next_attempt_at", nullable=True),
    time_column("completed_at", nullable=True),
    time_column("created_at"),
    time_column("updated_at"),
    CheckConstraint(one_of("status", lifecycle.RUN_STATUSES), name="runs_status"),
    CheckConstraint(
        f"({one_of('status', lifecycle.TERMINAL)}) = (completed_at IS NOT NULL)",
        name="runs_terminal_has_end",
    ),
    CheckConstraint(
        f"({one_of('status', lifecycle.CLAIMABLE)}) = (due_at IS NOT NULL)"
        " OR lease_token IS NOT NULL",
        name="runs_claimable_is_due",
    ),
    CheckConstraint(
        "(lease_token IS NULL) = (locked_by IS NULL)"
        " AND (lease_token IS NULL) = (locked_at IS NULL)"
        " AND (lease_token IS NULL OR due_at IS NOT NULL)",
        name="runs_lease_is_whole",
    ),
    CheckConstraint(
        f"status <> '{lifecycle.RUNNING}' OR started_at IS NOT NULL", name="runs_running_has_start"
    ),
    CheckConstraint(
        "attempt_count >= 0 AND max_attempts >= 1 AND (timeout_ms IS NULL OR timeout_ms > 0)",
        name="runs_counts",
    ),
    CheckConstraint("admitted OR concurrency_key IS NOT NULL", name="runs_waiting_has_group"),
    CheckConstraint(
        "(parent_run_id IS NULL) = (depth = 0) AND (parent_run_id IS NULL) = (parent_seq IS NULL)"
        " AND (parent_run_id IS NULL) = (root_run_id IS NULL) AND depth >= 0",
        name="runs_nesting_is_whole",
    ),
    CheckConstraint(
        f"NOT in_doubt OR status = '{lifecycle.PAUSED}'", name="runs_in_doubt_is_paused"
    ),
    Index(
        "runs_due",
        "due_at",
        postgresql_where=text(f"{one_of('status', lifecycle.CLAIMABLE)} AND admitted"),
    ),
    # runs that wait for a place in their group, and those that have one
    Index(
        "runs_waiting",
        "metronome_id",
        "concurrency_key",
        "queued_at",
        "id",
        postgresql_where=text(f"status = '{lifecycle.QUEUED}' AND NOT admitted"),
    ),
    Index(
        "runs_admitted",
        "metronome_id",
        "concurrency_key",
        "id",
        postgresql_where=text(
            "concurrency_key IS NOT NULL AND admitted"
            " AND (completed_at IS NULL OR lease_token IS NOT NULL)"
        ),
    ),
    # runs that were stopped while an executor held them: the sweep looks here
    Index(
        "runs_draining",
        "due_at",
        postgresql_where=text(
            f"lease_token IS NOT NULL AND NOT {one_of('status', lifecycle.CLAIMABLE)}"
        ),
    ),
    # what an executor holds: looked at once it is dead
    Index("runs_held", "locked_by", postgresql_where=text("lease_token IS NOT NULL")),
    Index("runs_by_metronome", "metronome_id", "id"),
    Index("runs_by_status", "metronome_id", "status", "id"),
    Index(
        "runs_by_project",
        "metronome_id",
        "attached_project_id",
        "id",
        postgresql_where=text("attached_project_id IS NOT NULL"),
    ),
    Index(
        "runs_by_ticket",
        "metronome_id",
        "attached_ticket_id",
        "id",
        postgresql_where=text("attached_ticket_id IS NOT NULL"),
    ),
    Index(
        "runs_by_parent",
        "parent_run_id",
        "id",
        postgresql_where=text("parent_run_id IS NOT NULL"),
    ),
    Index(
        "runs_idempotency",
        "metronome_id",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    Index(
        "runs_event",
        "metronome_id",
        "event_key",
        unique=True,
        postgresql_where=text("event_key IS NOT NULL"),
    ),
)

steps = Table(
    "steps",
    metadata,
    Column("run_id", Text, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("metronome_id", Text, nullable=False),
    Column("node_id", Text, nullable=False),
    Column("node_type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("input", JSON),
    Column("output", JSON),
    Column("metadata", JSON),
    Column("error", Text),
    # inside of a loop: the seq of the loop's own step, and the iteration, from 0
    Column("parent_seq", Integer),
    Column("iteration", Integer),
    # the claim under which the node is in flight; NULL once it has ended, or while it is parked
    Column("lease_token", Text),
    # running the node again after a lost executor might do harm
    Column("unsafe", Boolean, nullable=False, server_default=text("false")),
    Column("connector", Text),  # the connector that the node is dispatched to
    Column("callback_sha256", Text),  # of the token with which it may call back, in hex
    Column("result", JSON),  # what came from outside while the step was open
    Column("organization_id", Text),  # of those that wait for an approval, to list them by
    time_column("wake_at", nullable=True),
    time_column("started_at", nullable=True),
    time_column("completed_at", nullable=True),
    time_column("created_at"),
    time_column("updated_at"),
    PrimaryKeyConstraint("run_id", "seq", name="steps_pkey"),
    CheckConstraint(one_of("status", lifecycle.STEP_STATUSES), name="steps_status"),
    CheckConstraint(
        f"({one_of('status', lifecycle.OPEN_STEP)}) = (completed_at IS NULL)",
        name="steps_ended_has_end",
    ),
    CheckConstraint(
        f"lease_token IS NULL OR status = '{lifecycle.RUNNING}'", name="steps_lease_is_in_flight"
    ),
    CheckConstraint("(parent_seq IS NULL) = (iteration IS NULL)", name="steps_iteration_is_whole"),
    Index(
        "steps_waiting_approval",
        "organization_id",
        "run_id",
        "seq",
        postgresql_where=text(f"status = '{lifecycle.WAITING_APPROVAL}' AND result IS NULL"),
    ),
    Index(
        "steps_by_loop",
        "run_id",
        "parent_seq",
        "iteration",
        postgresql_where=text("parent_seq IS NOT NULL"),
    ),
)

# What connectors have yet to be told. A row is deleted once it was delivered.
outbox = Table(
    "outbox",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("metronome_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("node_id", Text, nullable=False),
    Column("connector", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    # when it is to be sent (again); NULL where it was given up
    Column("due_at", DateTime(timezone=True)),
    Column("error", Text),
    time_column("created_at"),
    Index("outbox_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("outbox_by_step", "run_id", "seq"),
    Index("outbox_given_up", "created_at", postgresql_where=text("due_at IS NULL")),
)
