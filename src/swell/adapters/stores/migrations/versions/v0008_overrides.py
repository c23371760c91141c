"""Raises of budgets for a while."""

from alembic import op
from sqlalchemy import Column, Float

from swell.adapters.stores.columns import Whole, Words

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "budget_overrides",
        Column("entry", Whole, primary_key=True),
        Column("override_id", Words, nullable=False, unique=True),
        Column("budget_id", Words, nullable=False),
        Column("scope", Words, nullable=False),
        Column("owner", Words, nullable=False),
        Column("model", Words, nullable=False),
        Column("period", Words, nullable=False),
        Column("by_usd_nanos", Whole, nullable=False),
        Column("reason", Words, nullable=False),
        Column("created_by", Words, nullable=False),
        Column("created_at_unix", Float, nullable=False),
        Column("until_unix", Float, nullable=False),
        Column("ended_at_unix", Float),
        sqlite_autoincrement=True,
    )
    op.create_index("budget_overrides_until", "budget_overrides", ["until_unix"])
