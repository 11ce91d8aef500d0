"""The first schema: keys, workflows, versions, runs, steps, audit events, executors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("sha256"),
    )
    op.create_table(
        "audit_events",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("metronome_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("actor_user_id", sa.Text(), nullable=False),
        sa.Column("actor_key_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("version_id", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "audit_events_by_organization", "audit_events", ["organization_id", "id"], unique=False
    )
    op.create_index(
        "audit_events_by_run",
        "audit_events",
        ["run_id"],
        unique=False,
        postgresql_where=sa.text("run_id IS NOT NULL"),
    )
    op.create_table(
        "executors",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "metronomes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("trigger_summary", sa.Text(), nullable=True),
        sa.Column("draft_version_id", sa.Text(), nullable=True),
        sa.Column("published_version_id", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "status IN ('draft', 'active', 'paused', 'archived')", name="metronomes_status"
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "metronomes_by_organization", "metronomes", ["organization_id", "id"], unique=False
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("metronome_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("trigger_type", sa.Text(), nullable=False),
        sa.Column("trigger_event_id", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("input", sa.JSON(), nullable=False),
        sa.Column("output", sa.JSON(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempt_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_attempts", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("attempt_due", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("timeout_ms", sa.BigInteger(), nullable=True),
        sa.Column("attached_project_id", sa.Text(), nullable=True),
        sa.Column("attached_ticket_id", sa.Text(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("locked_by", sa.Text(), nullable=True),
        sa.Column("locked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "queued_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(status IN ('completed', 'failed', 'cancelled')) = (completed_at IS NOT NULL)",
            name="runs_terminal_has_end",
        ),
        sa.CheckConstraint(
            "(status IN ('queued', 'running')) = (due_at IS NOT NULL) OR lease_token IS NOT NULL",
            name="runs_claimable_is_due",
        ),
        sa.CheckConstraint(
            "status <> 'running' OR started_at IS NOT NULL", name="runs_running_has_start"
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'waiting_approval', 'paused', 'completed', 'failed', 'cancelled')",
            name="runs_status",
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (locked_by IS NULL) AND (lease_token IS NULL) = (locked_at IS NULL) AND (lease_token IS NULL OR due_at IS NOT NULL)",
            name="runs_lease_is_whole",
        ),
        sa.CheckConstraint(
            "attempt_count >= 0 AND max_attempts >= 1 AND (timeout_ms IS NULL OR timeout_ms > 0)",
            name="runs_counts",
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("runs_by_metronome", "runs", ["metronome_id", "id"], unique=False)
    op.create_index(
        "runs_by_project",
        "runs",
        ["metronome_id", "attached_project_id", "id"],
        unique=False,
        postgresql_where=sa.text("attached_project_id IS NOT NULL"),
    )
    op.create_index("runs_by_status", "runs", ["metronome_id", "status", "id"], unique=False)
    op.create_index(
        "runs_by_ticket",
        "runs",
        ["metronome_id", "attached_ticket_id", "id"],
        unique=False,
        postgresql_where=sa.text("attached_ticket_id IS NOT NULL"),
    )
    op.create_index(
        "runs_draining",
        "runs",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("lease_token IS NOT NULL AND NOT status IN ('queued', 'running')"),
    )
    op.create_index(
        "runs_due",
        "runs",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_index(
        "runs_idempotency",
        "runs",
        ["metronome_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "steps",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("metronome_id", sa.Text(), nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("node_type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("input", sa.JSON(), nullable=True),
        sa.Column("output", sa.JSON(), nullable=True),
        sa.Column("metadata", sa.JSON(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("wake_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(status IN ('queued', 'running', 'waiting_approval', 'paused')) = (completed_at IS NULL)",
            name="steps_ended_has_end",
        ),
        sa.CheckConstraint(
            "lease_token IS NULL OR status = 'running'", name="steps_lease_is_in_flight"
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'waiting_approval', 'paused', 'completed', 'failed', 'cancelled', 'skipped')",
            name="steps_status",
        ),
        sa.PrimaryKeyConstraint("run_id", "seq", name="steps_pkey"),
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("metronome_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("node_count", sa.Integer(), nullable=False),
        sa.Column("edge_count", sa.Integer(), nullable=False),
        sa.Column("trigger_summary", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('saved', 'published', 'archived')", name="versions_status"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("metronome_id", "version", name="versions_number"),
    )


def downgrade() -> None:
    """Take the change back."""
    op.drop_table("versions")
    op.drop_table("steps")
    op.drop_index(
        "runs_idempotency",
        table_name="runs",
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.drop_index(
        "runs_due", table_name="runs", postgresql_where=sa.text("status IN ('queued', 'running')")
    )
    op.drop_index(
        "runs_draining",
        table_name="runs",
        postgresql_where=sa.text("lease_token IS NOT NULL AND NOT status IN ('queued', 'running')"),
    )
    op.drop_index(
        "runs_by_ticket",
        table_name="runs",
        postgresql_where=sa.text("attached_ticket_id IS NOT NULL"),
    )
    op.drop_index("runs_by_status", table_name="runs")
    op.drop_index(
        "runs_by_project",
        table_name="runs",
        postgresql_where=sa.text("attached_project_id IS NOT NULL"),
    )
    op.drop_index("runs_by_metronome", table_name="runs")
    op.drop_table("runs")
    op.drop_index("metronomes_by_organization", table_name="metronomes")
    op.drop_table("metronomes")
    op.drop_table("executors")
    op.drop_index(
        "audit_events_by_run",
        table_name="audit_events",
        postgresql_where=sa.text("run_id IS NOT NULL"),
    )
    op.drop_index("audit_events_by_organization", table_name="audit_events")
    op.drop_table("audit_events")
    op.drop_table("api_keys")
