"""Lives of replicas, for what they cost."""

from alembic import op
from sqlalchemy import Column, Integer, Text, text

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the table. Of replicas that lived before, nothing is known."""
    op.create_table(
        "replica_runs",
        Column("replica_id", Text, primary_key=True, nullable=False),
        Column("model", Text, nullable=False),
        Column("provider", Text, nullable=False),
        Column("market", Text, nullable=False),
        Column("accelerator", Text, nullable=False),
        Column("usd_nanos_per_hour", Integer, nullable=False),
        Column("started_unix_ms", Integer, nullable=False),
        Column("ready_unix_ms", Integer),
        Column("ended_unix_ms", Integer),
        Column("seen_unix_ms", Integer, nullable=False),
    )
    op.create_index("replica_runs_started", "replica_runs", ["started_unix_ms", "replica_id"])
    op.create_index("replica_runs_open", "replica_runs", ["replica_id"], sqlite_where=text("ended_unix_ms IS NULL"))
