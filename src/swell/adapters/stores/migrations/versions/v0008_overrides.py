"""Raises of budgets for a while."""

from alembic import op
from sqlalchemy import Column, Float, Integer, Text

revision = "0008"
down_revision = "0006"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "budget_overrides",
        Column("entry", Integer, primary_key=True),
        Column("override_id", Text, nullable=False, unique=True),
        Column("budget_id", Text, nullable=False),
        Column("scope", Text, nullable=False),
        Column("owner", Text, nullable=False),
        Column("model", Text, nullable=False),
        Column("period", Text, nullable=False),
        Column("by_usd_nanos", Integer, nullable=False),
        Column("reason", Text, nullable=False),
        Column("created_by", Text, nullable=False),
        Column("created_at_unix", Float, nullable=False),
        Column("until_unix", Float, nullable=False),
        Column("ended_at_unix", Float),
        sqlite_autoincrement=True,
    )
    op.create_index("budget_overrides_until", "budget_overrides", ["until_unix"])
