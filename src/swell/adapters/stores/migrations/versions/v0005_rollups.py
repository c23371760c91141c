"""Sums of the ledger by the hour."""

from alembic import op
from sqlalchemy import Column, Integer, Text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the tables. Hours that are in the ledger already are summed by and by."""
    op.create_table(
        "usage_hours",
        Column("start_unix_ms", Integer, primary_key=True, nullable=False),
        Column("key_id", Text, primary_key=True, nullable=False),
        Column("tenant", Text, primary_key=True, nullable=False),
        Column("model", Text, primary_key=True, nullable=False),
        Column("endpoint", Text, primary_key=True, nullable=False),
        Column("status", Text, primary_key=True, nullable=False),
        Column("prompt_rate", Integer, primary_key=True, nullable=False),
        Column("completion_rate", Integer, primary_key=True, nullable=False),
        Column("requests", Integer, nullable=False),
        Column("prompt_tokens", Integer, nullable=False),
        Column("completion_tokens", Integer, nullable=False),
        Column("charge_usd_nanos", Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "stale_hours",
        Column("start_unix_ms", Integer, primary_key=True, nullable=False),
    )
