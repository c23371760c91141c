"""Rates that follow from what replicas cost, as they were posted."""

from alembic import op
from sqlalchemy import Column

from swell.adapters.stores.columns import Whole, Words

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the table. No rate was posted before."""
    op.create_table(
        "posted_rates",
        Column("model", Words, primary_key=True, nullable=False),
        Column("start_unix_ms", Whole, primary_key=True, nullable=False),
        Column("end_unix_ms", Whole, nullable=False),
        Column("label", Words, nullable=False),
        Column("prompt_rate", Whole, nullable=False),
        Column("completion_rate", Whole, nullable=False),
        Column("basis", Words, nullable=False),
        Column("reason", Words, nullable=False),
        Column("since_unix_ms", Whole, nullable=False),
        Column("until_unix_ms", Whole, nullable=False),
        Column("starting_usd_nanos", Whole, nullable=False),
        Column("used_usd_nanos", Whole, nullable=False),
        Column("idle_usd_nanos", Whole, nullable=False),
        Column("charge_usd_nanos", Whole, nullable=False),
        Column("requests", Whole, nullable=False),
        Column("prompt_tokens", Whole, nullable=False),
        Column("completion_tokens", Whole, nullable=False),
        Column("markup_ppm", Whole, nullable=False),
        Column("carried_usd_nanos", Whole, nullable=False),
        Column("missed_usd_nanos", Whole, nullable=False),
        Column("counted_until_unix_ms", Whole, nullable=False),
        Column("posted_at_unix_ms", Whole, nullable=False),
    )
    op.create_index("posted_rates_start", "posted_rates", ["start_unix_ms", "model"])
