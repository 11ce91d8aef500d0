"""Runs in depth: nested runs, loops, approvals, doubt, remote work and its outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_OLD = "status IN ('queued', 'running')"
_NEW = "status IN ('queued', 'running', 'waiting_approval')"

_CLAIMABLE = "({}) = (due_at IS NOT NULL) OR lease_token IS NOT NULL"


def upgrade() -> None:
    """Apply the change."""
    _runs()
    _claimable(_NEW)
    _steps()
    op.create_table(
        "outbox",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("metronome_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("connector", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            nullable=True,
        ),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "outbox_due", "outbox", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_index("outbox_by_step", "outbox", ["run_id", "seq"])
    op.create_index(
        "outbox_given_up", "outbox", ["created_at"], postgresql_where=sa.text("due_at IS NULL")
    )


def _runs() -> None:
    op.add_column("runs", sa.Column("parent_run_id", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("parent_seq", sa.Integer(), nullable=True))
    op.add_column("runs", sa.Column("root_run_id", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("paused_by", sa.Text(), nullable=True))
    for name in ("depth", "takeovers", "base_seq", "base_attempt", "confirmed_seq"):
        column = sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)
        op.add_column("runs", column)
    for name in ("signalled", "in_doubt"):
        column = sa.Column(name, sa.Boolean(), server_default=sa.text("false"), nullable=False)
        op.add_column("runs", column)
    op.create_check_constraint(
        "runs_nesting_is_whole",
        "runs",
        "(parent_run_id IS NULL) = (depth = 0) AND (parent_run_id IS NULL) = (parent_seq IS NULL)"
        " AND (parent_run_id IS NULL) = (root_run_id IS NULL) AND depth >= 0",
    )
    op.create_check_constraint(
        "runs_in_doubt_is_paused", "runs", "NOT in_doubt OR status = 'paused'"
    )
    op.create_index(
        "runs_by_parent",
        "runs",
        ["parent_run_id", "id"],
        postgresql_where=sa.text("parent_run_id IS NOT NULL"),
    )


def _steps() -> None:
    op.add_column("steps", sa.Column("parent_seq", sa.Integer(), nullable=True))
    op.add_column("steps", sa.Column("iteration", sa.Integer(), nullable=True))
    op.add_column(
        "steps",
        sa.Column("unsafe", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column("steps", sa.Column("connector", sa.Text(), nullable=True))
    op.add_column("steps", sa.Column("callback_sha256", sa.Text(), nullable=True))
    op.add_column("steps", sa.Column("result", sa.JSON(), nullable=True))
    op.add_column("steps", sa.Column("organization_id", sa.Text(), nullable=True))
    op.create_check_constraint(
        "steps_iteration_is_whole", "steps", "(parent_seq IS NULL) = (iteration IS NULL)"
    )
    op.create_index(
        "steps_waiting_approval",
        "steps",
        ["organization_id", "run_id", "seq"],
        postgresql_where=sa.text("status = 'waiting_approval' AND result IS NULL"),
    )
    op.create_index(
        "steps_by_loop",
        "steps",
        ["run_id", "parent_seq", "iteration"],
        postgresql_where=sa.text("parent_seq IS NOT NULL"),
    )


def _claimable(condition: str) -> None:
    """Which runs can be claimed: the constraint and the two indexes that repeat it."""
    op.drop_constraint("runs_claimable_is_due", "runs", type_="check")
    op.drop_index("runs_due", table_name="runs")
    op.drop_index("runs_draining", table_name="runs")
    if condition == _NEW:
        due = "UPDATE runs SET due_at = 'infinity'"
    else:
        due = "UPDATE runs SET due_at = NULL"
    op.execute(due + " WHERE status = 'waiting_approval' AND lease_token IS NULL")
    op.create_check_constraint("runs_claimable_is_due", "runs", _CLAIMABLE.format(condition))
    op.create_index("runs_due", "runs", ["due_at"], postgresql_where=sa.text(condition))
    op.create_index(
        "runs_draining",
        "runs",
        ["due_at"],
        postgresql_where=sa.text(f"lease_token IS NOT NULL AND NOT {condition}"),
    )


def downgrade() -> None:
    """Take the change back: what the older schema can't say is lost."""
    op.drop_table("outbox")
    op.drop_index("steps_by_loop", table_name="steps")
    op.drop_index("steps_waiting_approval", table_name="steps")
    op.drop_constraint("steps_iteration_is_whole", "steps", type_="check")
    for name in (
        *("parent_seq", "iteration", "unsafe", "connector", "callback_sha256"),
        *("result", "organization_id"),
    ):
        op.drop_column("steps", name)
    _claimable(_OLD)
    op.drop_index("runs_by_parent", table_name="runs")
    op.drop_constraint("runs_in_doubt_is_paused", "runs", type_="check")
    op.drop_constraint("runs_nesting_is_whole", "runs", type_="check")
    for name in (
        *("parent_run_id", "parent_seq", "root_run_id", "paused_by", "depth"),
        *("takeovers", "base_seq", "base_attempt", "confirmed_seq", "signalled", "in_doubt"),
    ):
        op.drop_column("runs", name)
