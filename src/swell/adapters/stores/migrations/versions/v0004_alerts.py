"""Alerts, and what became of each at every sink."""

from alembic import op
from sqlalchemy import Column, Float, Integer, Text, text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "alerts",
        Column("entry", Integer, primary_key=True),
        Column("alert_id", Text, nullable=False, unique=True),
        Column("limit_name", Text, nullable=False),
        Column("threshold", Text, nullable=False),
        Column("kind", Text, nullable=False),
        Column("severity", Text, nullable=False),
        Column("title", Text, nullable=False),
        Column("text", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("at_unix", Float, nullable=False),
        Column("values", Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("alerts_once", "alerts", ["limit_name", "threshold"], unique=True)
    op.create_table(
        "alert_deliveries",
        Column("alert_id", Text, primary_key=True, nullable=False),
        Column("sink", Text, primary_key=True, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("next_try_unix", Float, nullable=False),
        Column("delivered_at_unix", Float),
        Column("given_up", Text),
        Column("problem", Text, nullable=False),
    )
    op.create_index(
        "alert_deliveries_waiting",
        "alert_deliveries",
        ["alert_id"],
        sqlite_where=text("delivered_at_unix IS NULL AND given_up IS NULL"),
    )
