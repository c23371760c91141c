"""Charges in the ledger; budgets and what of them is leased."""

from alembic import op
from sqlalchemy import Column, Integer, Text, text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns, which are 0 for requests before there were prices, and make the tables."""
    for name in ("prompt_rate", "completion_rate", "charge_usd_nanos"):
        op.add_column("usage", Column(name, Integer, nullable=False, server_default=text("0")))
    op.create_table(
        "budgets",
        Column("limit_name", Text, primary_key=True, nullable=False),
        Column("scope", Text, nullable=False),
        Column("owner", Text, nullable=False),
        Column("model", Text, nullable=False),
        Column("start_unix_ms", Integer, nullable=False),
        Column("end_unix_ms", Integer),
        Column("spent_usd_nanos", Integer, nullable=False),
    )
    op.create_table(
        "budget_leases",
        Column("limit_name", Text, primary_key=True, nullable=False),
        Column("incarnation", Text, primary_key=True, nullable=False),
        Column("granted_usd_nanos", Integer, nullable=False),
    )
