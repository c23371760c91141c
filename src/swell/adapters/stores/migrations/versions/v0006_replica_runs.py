"""Lives of replicas, for what they cost."""

from alembic import op
from sqlalchemy import Column, text

from swell.adapters.stores.columns import Whole, Words

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the table. Of replicas that lived before, nothing is known."""
    op.create_table(
        "replica_runs",
        Column("replica_id", Words, primary_key=True, nullable=False),
        Column("model", Words, nullable=False),
        Column("provider", Words, nullable=False),
        Column("market", Words, nullable=False),
        Column("accelerator", Words, nullable=False),
        Column("usd_nanos_per_hour", Whole, nullable=False),
        Column("started_unix_ms", Whole, nullable=False),
        Column("ready_unix_ms", Whole),
        Column("ended_unix_ms", Whole),
        Column("seen_unix_ms", Whole, nullable=False),
    )
    op.create_index("replica_runs_started", "replica_runs", ["started_unix_ms", "replica_id"])
    op.create_index(
        "replica_runs_open",
        "replica_runs",
        ["replica_id"],
        sqlite_where=text("ended_unix_ms IS NULL"),
        postgresql_where=text("ended_unix_ms IS NULL"),
    )
