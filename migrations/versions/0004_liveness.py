"""Executors that hold a lock while they live, and the runs that each of them holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.add_column(
        "executors",
        sa.Column("lifeline", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.create_index(
        "runs_held",
        "runs",
        ["locked_by"],
        postgresql_where=sa.text("lease_token IS NOT NULL"),
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_index("runs_held", table_name="runs")
    op.drop_column("executors", "lifeline")
