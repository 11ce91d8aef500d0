"""The whole contract: roles, published versions, triggers, limits on concurrent runs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CLAIMABLE = "status IN ('queued', 'running', 'waiting_approval')"
_EVENT_STATUSES = ("matched", "ignored", "failed", "unauthorized")


def _time(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    default = None if nullable else sa.text("clock_timestamp()")
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=nullable)


def upgrade() -> None:
    """Apply the change."""
    _access()
    _workflows()
    _runs()
    _triggers()


def _access() -> None:
    op.add_column(
        "api_keys",
        sa.Column("role", sa.Text(), server_default=sa.text("'admin'"), nullable=False),
    )
    # That was for the keys that there are: whoever makes another one has to say what it may do.
    op.alter_column("api_keys", "role", server_default=None)
    op.create_check_constraint(
        "api_keys_role",
        "api_keys",
        "role IN ('viewer', 'watchdog', 'operator', 'editor', 'admin')",
    )
    op.create_index("api_keys_by_organization", "api_keys", ["organization_id", "user_id"])
    op.alter_column("audit_events", "metronome_id", nullable=True)
    op.create_index("audit_events_by_action", "audit_events", ["organization_id", "action", "id"])
    op.create_index("audit_events_by_metronome", "audit_events", ["metronome_id", "id"])
    op.create_index(
        "audit_events_deployments",
        "audit_events",
        ["metronome_id", "id"],
        postgresql_where=sa.text("action IN ('version.published', 'metronome.unpublished')"),
    )
    op.drop_index("audit_events_by_run", table_name="audit_events")
    op.create_index(
        "audit_events_by_run",
        "audit_events",
        ["run_id", "id"],
        postgresql_where=sa.text("run_id IS NOT NULL"),
    )
    op.create_index(
        "audit_events_by_actor", "audit_events", ["organization_id", "actor_user_id", "id"]
    )
    op.create_index(
        "audit_events_by_version",
        "audit_events",
        ["version_id", "id"],
        postgresql_where=sa.text("version_id IS NOT NULL"),
    )


def _workflows() -> None:
    one = sa.text("1")
    op.add_column(
        "metronomes", sa.Column("revision", sa.BigInteger(), server_default=one, nullable=False)
    )
    op.add_column("metronomes", sa.Column("max_concurrent_runs", sa.Integer(), nullable=True))
    op.add_column(
        "metronomes",
        sa.Column("on_limit", sa.Text(), server_default=sa.text("'queue'"), nullable=False),
    )
    op.add_column("metronomes", sa.Column("concurrency_key", sa.Text(), nullable=True))
    op.create_check_constraint(
        "metronomes_on_limit", "metronomes", "on_limit IN ('queue', 'reject', 'cancel_oldest')"
    )
    op.create_check_constraint("metronomes_limit", "metronomes", "max_concurrent_runs >= 1")
    op.create_index("metronomes_by_status", "metronomes", ["organization_id", "status", "id"])
    op.alter_column("versions", "version", nullable=True)
    op.add_column(
        "versions",
        sa.Column("revision", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    # What a draft's runs use has no number from now on, and does not change as saved versions may.
    op.execute("UPDATE metronomes SET draft_version_id = NULL")
    op.create_index(
        "versions_published",
        "versions",
        ["metronome_id"],
        unique=True,
        postgresql_where=sa.text("status = 'published'"),
    )
    op.create_table(
        "version_revisions",
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("version_id", "revision", name="version_revisions_pkey"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=False),
        _time("created_at"),
        sa.PrimaryKeyConstraint("organization_id", "scope", "key", name="idempotency_keys_pkey"),
    )
    op.create_index("idempotency_keys_by_age", "idempotency_keys", ["created_at"])


def _runs() -> None:
    op.add_column(
        "runs",
        sa.Column("version_revision", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("runs", sa.Column("entry_nodes", sa.JSON(), nullable=True))
    op.add_column("runs", sa.Column("event_key", sa.Text(), nullable=True))
    op.create_index(
        "runs_event",
        "runs",
        ["metronome_id", "event_key"],
        unique=True,
        postgresql_where=sa.text("event_key IS NOT NULL"),
    )
    op.add_column("runs", sa.Column("concurrency_key", sa.Text(), nullable=True))
    op.add_column(
        "runs",
        sa.Column("admitted", sa.Boolean(), server_default=sa.text("true"), nullable=False),
    )
    op.create_check_constraint(
        "runs_waiting_has_group", "runs", "admitted OR concurrency_key IS NOT NULL"
    )
    op.drop_index("runs_due", table_name="runs")
    op.create_index(
        "runs_due", "runs", ["due_at"], postgresql_where=sa.text(f"{_CLAIMABLE} AND admitted")
    )
    group = ["metronome_id", "concurrency_key"]
    op.create_index(
        "runs_waiting",
        "runs",
        [*group, "queued_at", "id"],
        postgresql_where=sa.text("status = 'queued' AND NOT admitted"),
    )
    op.create_index(
        "runs_admitted",
        "runs",
        [*group, "id"],
        postgresql_where=sa.text(
            "concurrency_key IS NOT NULL AND admitted"
            " AND (completed_at IS NULL OR lease_token IS NOT NULL)"
        ),
    )


def _triggers() -> None:
    op.create_table(
        "triggers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("metronome_id", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("trigger_type", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=True),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        _time("next_due_at", nullable=True),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("triggers_by_type", "triggers", ["organization_id", "trigger_type", "id"])
    op.create_index("triggers_by_metronome", "triggers", ["metronome_id", "node_id"], unique=True)
    op.create_index(
        "triggers_by_slug",
        "triggers",
        ["metronome_id", "slug"],
        unique=True,
        postgresql_where=sa.text("slug IS NOT NULL"),
    )
    op.create_index(
        "triggers_due",
        "triggers",
        ["next_due_at"],
        postgresql_where=sa.text("next_due_at IS NOT NULL"),
    )
    _events()
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        _time("created_at"),
        _time("revoked_at", nullable=True),
        _time("used_at", nullable=True),
        _time("refused_at", nullable=True),
        sa.Column("refused_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("sha256"),
    )
    op.create_index("webhooks_by_organization", "webhooks", ["organization_id", "id"])


def _events() -> None:
    op.create_table(
        "trigger_events",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("metronome_id", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("trigger_type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("source_event_id", sa.Text(), nullable=True),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("sample", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("passing", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        _time("created_at"),
        sa.CheckConstraint(
            "status IN ('matched', 'ignored', 'failed', 'unauthorized')",
            name="trigger_events_status",
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    of = "trigger_events"
    for whose in ("organization", "metronome"):
        column, name = f"{whose}_id", f"trigger_events_by_{whose}"
        op.create_index(name, of, [column, "status", "id"])
        op.create_index(f"{name}_type", of, [column, "trigger_type", "status", "id"])
    op.create_index(
        "trigger_events_by_source",
        of,
        ["organization_id", "trigger_type", "source_event_id"],
        postgresql_where=sa.text("source_event_id IS NOT NULL AND NOT sample"),
    )
    op.create_index(
        "trigger_events_ignored_once",
        of,
        [
            "organization_id",
            "trigger_type",
            "source_event_id",
            sa.text("coalesce(metronome_id, '')"),
        ],
        unique=True,
        postgresql_where=sa.text(
            "status = 'ignored' AND source_event_id IS NOT NULL AND NOT sample"
        ),
    )
    zero = sa.text("0")
    op.create_table(
        "trigger_totals",
        sa.Column("metronome_id", sa.Text(), nullable=False),
        sa.Column("trigger_type", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        *(
            sa.Column(f"{one}_count", sa.BigInteger(), server_default=zero, nullable=False)
            for one in _EVENT_STATUSES
        ),
        *(_time(f"last_{one}_at", nullable=True) for one in _EVENT_STATUSES),
        sa.Column("last_event_id", sa.Text(), nullable=True),
        sa.Column("last_matched_event_id", sa.Text(), nullable=True),
        sa.Column("last_run_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("metronome_id", "trigger_type", name="trigger_totals_pkey"),
    )


def downgrade() -> None:
    """Take the change back: what the older schema can't say is lost."""
    for table in ("webhooks", "trigger_totals", "trigger_events", "triggers"):
        op.drop_table(table)
    for index in ("runs_admitted", "runs_waiting", "runs_due", "runs_event"):
        op.drop_index(index, table_name="runs")
    op.create_index("runs_due", "runs", ["due_at"], postgresql_where=sa.text(_CLAIMABLE))
    op.drop_constraint("runs_waiting_has_group", "runs", type_="check")
    _revisions_as_versions()
    for name in ("admitted", "concurrency_key", "event_key", "entry_nodes", "version_revision"):
        op.drop_column("runs", name)
    op.drop_table("idempotency_keys")
    op.drop_table("version_revisions")
    op.drop_index("versions_published", table_name="versions")
    op.drop_column("versions", "revision")
    # What was only run had numbers then, behind those that were saved.
    op.execute(
        "UPDATE versions v SET version = n.number FROM ("
        "SELECT u.id, m.last + row_number() OVER (PARTITION BY u.metronome_id ORDER BY u.id)"
        " AS number FROM versions u, LATERAL (SELECT coalesce(max(s.version), -1) AS last"
        " FROM versions s WHERE s.metronome_id = u.metronome_id) m WHERE u.version IS NULL"
        ") n WHERE v.id = n.id"
    )
    op.alter_column("versions", "version", nullable=False)
    op.drop_index("metronomes_by_status", table_name="metronomes")
    op.drop_constraint("metronomes_limit", "metronomes", type_="check")
    op.drop_constraint("metronomes_on_limit", "metronomes", type_="check")
    for name in ("concurrency_key", "on_limit", "max_concurrent_runs", "revision"):
        op.drop_column("metronomes", name)
    for index in ("by_version", "by_actor", "by_metronome", "by_run"):
        op.drop_index(f"audit_events_{index}", table_name="audit_events")
    op.create_index(
        "audit_events_by_run",
        "audit_events",
        ["run_id"],
        postgresql_where=sa.text("run_id IS NOT NULL"),
    )
    op.drop_index("audit_events_deployments", table_name="audit_events")
    op.drop_index("audit_events_by_action", table_name="audit_events")
    op.execute("DELETE FROM audit_events WHERE metronome_id IS NULL")
    op.alter_column("audit_events", "metronome_id", nullable=False)
    op.drop_index("api_keys_by_organization", table_name="api_keys")
    op.drop_constraint("api_keys_role", "api_keys", type_="check")
    # Without roles every key may do everything.
    op.execute(
        "UPDATE api_keys SET revoked_at = now() WHERE role <> 'admin' AND revoked_at IS NULL"
    )
    op.drop_column("api_keys", "role")


def _revisions_as_versions() -> None:
    """Make versions of what runs have begun with and was changed since then: they keep that."""
    op.execute(
        "WITH used AS MATERIALIZED ("
        "SELECT w.version_id, w.revision, w.definition,"
        " 'ver_' || md5(concat_ws(' ', w.version_id, w.revision, now())) AS id"
        " FROM version_revisions w WHERE EXISTS (SELECT FROM runs r"
        " WHERE r.version_id = w.version_id AND r.version_revision = w.revision)"
        "), made AS ("
        "INSERT INTO versions (id, organization_id, metronome_id, status, definition, node_count,"
        " edge_count, trigger_summary, created_at, updated_at)"
        " SELECT u.id, v.organization_id, v.metronome_id, 'saved', u.definition,"
        " coalesce(json_array_length(u.definition->'nodes'), 0),"
        " coalesce(json_array_length(u.definition->'edges'), 0), v.trigger_summary, v.created_at,"
        " v.updated_at FROM used u JOIN versions v ON v.id = u.version_id"
        ") UPDATE runs r SET version_id = u.id FROM used u"
        " WHERE r.version_id = u.version_id AND r.version_revision = u.revision"
    )
