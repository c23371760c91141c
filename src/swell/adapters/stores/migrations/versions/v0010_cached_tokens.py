"""Of the prompt tokens, those that an engine found in its prefix cache."""

from alembic import op
from sqlalchemy import Column, text

from swell.adapters.stores.columns import Whole

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column to the ledger, all its months included, and to its sums. It is 0 for what was before."""
    for table in ("usage", "usage_hours", "usage_days"):
        op.add_column(table, Column("cached_tokens", Whole, nullable=False, server_default=text("0")))
