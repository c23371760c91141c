"""Sums of the ledger by the day."""

from alembic import op
from sqlalchemy import Column

from swell.adapters.stores.columns import Whole, Words

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table. Hours that are summed up already are added to their days by and by."""
    op.create_table(
        "usage_days",
        Column("start_unix_ms", Whole, primary_key=True, nullable=False),
        Column("key_id", Words, primary_key=True, nullable=False),
        Column("tenant", Words, primary_key=True, nullable=False),
        Column("model", Words, primary_key=True, nullable=False),
        Column("endpoint", Words, primary_key=True, nullable=False),
        Column("status", Words, primary_key=True, nullable=False),
        Column("prompt_rate", Whole, primary_key=True, nullable=False),
        Column("completion_rate", Whole, primary_key=True, nullable=False),
        Column("requests", Whole, nullable=False),
        Column("prompt_tokens", Whole, nullable=False),
        Column("completion_tokens", Whole, nullable=False),
        Column("charge_usd_nanos", Whole, nullable=False),
        sqlite_with_rowid=False,
    )
