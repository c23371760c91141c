"""The trail of scaling decisions."""

from alembic import op
from sqlalchemy import Boolean, Column, Float, Integer, Text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "decisions",
        Column("entry", Integer, primary_key=True),
        Column("decision_id", Text, nullable=False, unique=True),
        Column("model", Text, nullable=False),
        Column("at_unix", Float, nullable=False),
        Column("until_unix", Float, nullable=False),
        Column("times", Integer, nullable=False),
        Column("before", Integer, nullable=False),
        Column("replicas", Integer, nullable=False),
        Column("is_hold", Boolean, nullable=False),
        Column("binding", Text, nullable=False),
        Column("reason", Text, nullable=False),
        Column("inputs", Text, nullable=False),
        Column("rejected", Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("decisions_of_model", "decisions", ["model", "entry"])
