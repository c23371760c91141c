"""Charges in the ledger; budgets and what of them is leased."""

from alembic import op
from sqlalchemy import Column, text

from swell.adapters.stores.columns import Whole, Words

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns, which are 0 for requests before there were prices, and make the tables."""
    for name in ("prompt_rate", "completion_rate", "charge_usd_nanos"):
        op.add_column("usage", Column(name, Whole, nullable=False, server_default=text("0")))
    op.create_table(
        "budgets",
        Column("limit_name", Words, primary_key=True, nullable=False),
        Column("scope", Words, nullable=False),
        Column("owner", Words, nullable=False),
        Column("model", Words, nullable=False),
        Column("start_unix_ms", Whole, nullable=False),
        Column("end_unix_ms", Whole),
        Column("spent_usd_nanos", Whole, nullable=False),
    )
    op.create_table(
        "budget_leases",
        Column("limit_name", Words, primary_key=True, nullable=False),
        Column("incarnation", Words, primary_key=True, nullable=False),
        Column("granted_usd_nanos", Whole, nullable=False),
    )
