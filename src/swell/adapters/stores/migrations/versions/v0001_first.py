"""Keys, usage, spool positions, processes, the append-only audit log."""

from alembic import op
from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, Text, text

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    _make_keys_and_processes()
    _make_usage()
    _make_audit()


def _make_keys_and_processes() -> None:
    op.create_table(
        "keys",
        Column("key_id", Text, primary_key=True),
        Column("name", Text, nullable=False),
        Column("tenant", Text, nullable=False),
        Column("digest", LargeBinary, nullable=False),
        Column("created_at_unix", Float, nullable=False),
        Column("expires_at_unix", Float),
        Column("previous_digest", LargeBinary),
        Column("previous_expires_at_unix", Float),
        Column("revoked_at_unix", Float),
        Column("limits", Text, nullable=False),
        Column("priority", Text, nullable=False),
    )
    op.create_table(
        "processes",
        Column("process_id", Text, primary_key=True),
        Column("kind", Text, nullable=False),
        Column("marker", Text, nullable=False),
        Column("recorded_at_unix", Float, nullable=False),
        Column("pid", Integer),
        Column("start_time", Float),
        Column("detail", Text, nullable=False),
    )
    op.create_table("counters", Column("name", Text, primary_key=True), Column("value", Integer, nullable=False))


def _make_usage() -> None:
    op.create_table(
        "usage",
        Column("request_id", Text, primary_key=True, nullable=False),
        Column("spool", Text, nullable=False),
        Column("reserved_at_unix_ms", Integer),
        Column("key_id", Text, nullable=False),
        Column("tenant", Text, nullable=False),
        Column("model", Text, nullable=False),
        Column("endpoint", Text, nullable=False),
        Column("sent", Boolean, nullable=False),
        Column("settled_at_unix_ms", Integer),
        Column("status", Text, nullable=False),
        Column("prompt_tokens", Integer, nullable=False),
        Column("completion_tokens", Integer, nullable=False),
        Column("replica_id", Text, nullable=False),
        Column("http_status", Integer, nullable=False),
        Column("duration_ms", Integer, nullable=False),
        Column("first_token_ms", Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("usage_arrived", "usage", [text("coalesce(reserved_at_unix_ms, settled_at_unix_ms)")])
    op.create_index(
        "usage_open",
        "usage",
        ["spool"],
        sqlite_where=text("settled_at_unix_ms IS NULL AND status = 'reserved'"),
    )
    op.create_table(
        "spool_positions",
        Column("spool", Text, primary_key=True),
        Column("segment", Integer, nullable=False),
        Column("byte_offset", Integer, nullable=False),
    )


def _make_audit() -> None:
    op.create_table(
        "audit",
        Column("entry", Integer, primary_key=True),
        Column("at_unix", Float, nullable=False),
        Column("principal", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("detail", Text, nullable=False),
        sqlite_autoincrement=True,
    )
    for act in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_no_{act.lower()} BEFORE {act} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit log can only grow'); END"
        )
