"""Alerts, and what became of each at every sink."""

from alembic import op
from sqlalchemy import Column, Float, text

from swell.adapters.stores.columns import Whole, Words

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "alerts",
        Column("entry", Whole, primary_key=True),
        Column("alert_id", Words, nullable=False, unique=True),
        Column("limit_name", Words, nullable=False),
        Column("threshold", Words, nullable=False),
        Column("kind", Words, nullable=False),
        Column("severity", Words, nullable=False),
        Column("title", Words, nullable=False),
        Column("text", Words, nullable=False),
        Column("subject", Words, nullable=False),
        Column("at_unix", Float, nullable=False),
        Column("values", Words, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("alerts_once", "alerts", ["limit_name", "threshold"], unique=True)
    op.create_table(
        "alert_deliveries",
        Column("alert_id", Words, primary_key=True, nullable=False),
        Column("sink", Words, primary_key=True, nullable=False),
        Column("attempts", Whole, nullable=False),
        Column("next_try_unix", Float, nullable=False),
        Column("delivered_at_unix", Float),
        Column("given_up", Words),
        Column("problem", Words, nullable=False),
    )
    op.create_index(
        "alert_deliveries_waiting",
        "alert_deliveries",
        ["alert_id"],
        sqlite_where=text("delivered_at_unix IS NULL AND given_up IS NULL"),
        postgresql_where=text("delivered_at_unix IS NULL AND given_up IS NULL"),
    )
