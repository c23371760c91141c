"""Keys, usage, spool positions, processes, the append-only audit log.

In Postgres the ledger is cut into partitions by the month in a request's id; what has no month in its id, or one
without a partition, is in `usage_other`.
"""

from alembic import op
from sqlalchemy import Boolean, Column, Float, LargeBinary, text

from swell.adapters.stores.columns import Whole, Words

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
        Column("key_id", Words, primary_key=True),
        Column("name", Words, nullable=False),
        Column("tenant", Words, nullable=False),
        Column("digest", LargeBinary, nullable=False),
        Column("created_at_unix", Float, nullable=False),
        Column("expires_at_unix", Float),
        Column("previous_digest", LargeBinary),
        Column("previous_expires_at_unix", Float),
        Column("revoked_at_unix", Float),
        Column("limits", Words, nullable=False),
        Column("priority", Words, nullable=False),
    )
    op.create_table(
        "processes",
        Column("process_id", Words, primary_key=True),
        Column("kind", Words, nullable=False),
        Column("marker", Words, nullable=False),
        Column("recorded_at_unix", Float, nullable=False),
        Column("pid", Whole),
        Column("start_time", Float),
        Column("detail", Words, nullable=False),
    )
    op.create_table("counters", Column("name", Words, primary_key=True), Column("value", Whole, nullable=False))


def _make_usage() -> None:
    op.create_table(
        "usage",
        Column("request_id", Words, primary_key=True, nullable=False),
        Column("spool", Words, nullable=False),
        Column("reserved_at_unix_ms", Whole),
        Column("key_id", Words, nullable=False),
        Column("tenant", Words, nullable=False),
        Column("model", Words, nullable=False),
        Column("endpoint", Words, nullable=False),
        Column("sent", Boolean, nullable=False),
        Column("settled_at_unix_ms", Whole),
        Column("status", Words, nullable=False),
        Column("prompt_tokens", Whole, nullable=False),
        Column("completion_tokens", Whole, nullable=False),
        Column("replica_id", Words, nullable=False),
        Column("http_status", Whole, nullable=False),
        Column("duration_ms", Whole, nullable=False),
        Column("first_token_ms", Whole, nullable=False),
        sqlite_with_rowid=False,
        postgresql_partition_by="RANGE (request_id)",
    )
    arrived = "coalesce(reserved_at_unix_ms, settled_at_unix_ms)"
    if _is_postgres():
        op.execute("CREATE TABLE usage_other PARTITION OF usage DEFAULT")
        arrived += " DESC NULLS LAST"
    op.create_index("usage_arrived", "usage", [text(arrived)])
    op.create_index(
        "usage_open",
        "usage",
        ["spool"],
        sqlite_where=text("settled_at_unix_ms IS NULL AND status = 'reserved'"),
        postgresql_where=text("settled_at_unix_ms IS NULL AND status = 'reserved'"),
    )
    op.create_table(
        "spool_positions",
        Column("spool", Words, primary_key=True),
        Column("segment", Whole, nullable=False),
        Column("byte_offset", Whole, nullable=False),
    )


def _make_audit() -> None:
    op.create_table(
        "audit",
        Column("entry", Whole, primary_key=True),
        Column("at_unix", Float, nullable=False),
        Column("principal", Words, nullable=False),
        Column("action", Words, nullable=False),
        Column("subject", Words, nullable=False),
        Column("detail", Words, nullable=False),
        sqlite_autoincrement=True,
    )
    if _is_postgres():
        op.execute(
            "CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit log can only grow'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()"
        )
        return
    for act in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_no_{act.lower()} BEFORE {act} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit log can only grow'); END"
        )


def _is_postgres() -> bool:
    return op.get_context().dialect.name == "postgresql"
