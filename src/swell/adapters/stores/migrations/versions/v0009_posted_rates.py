"""Rates that follow from what replicas cost, as they were posted."""

from alembic import op
from sqlalchemy import Column, Integer, Text

revision = "0009"
down_revision = "0006"


def upgrade() -> None:
    """Make the table. No rate was posted before."""
    op.create_table(
        "posted_rates",
        Column("model", Text, primary_key=True, nullable=False),
        Column("start_unix_ms", Integer, primary_key=True, nullable=False),
        Column("end_unix_ms", Integer, nullable=False),
        Column("label", Text, nullable=False),
        Column("prompt_rate", Integer, nullable=False),
        Column("completion_rate", Integer, nullable=False),
        Column("basis", Text, nullable=False),
        Column("reason", Text, nullable=False),
        Column("since_unix_ms", Integer, nullable=False),
        Column("until_unix_ms", Integer, nullable=False),
        Column("starting_usd_nanos", Integer, nullable=False),
        Column("used_usd_nanos", Integer, nullable=False),
        Column("idle_usd_nanos", Integer, nullable=False),
        Column("charge_usd_nanos", Integer, nullable=False),
        Column("requests", Integer, nullable=False),
        Column("prompt_tokens", Integer, nullable=False),
        Column("completion_tokens", Integer, nullable=False),
        Column("markup_ppm", Integer, nullable=False),
        Column("carried_usd_nanos", Integer, nullable=False),
        Column("missed_usd_nanos", Integer, nullable=False),
        Column("counted_until_unix_ms", Integer, nullable=False),
        Column("posted_at_unix_ms", Integer, nullable=False),
    )
    op.create_index("posted_rates_start", "posted_rates", ["start_unix_ms", "model"])
