"""The trail of scaling decisions."""

from alembic import op
from sqlalchemy import Boolean, Column, Float

from swell.adapters.stores.columns import Whole, Words

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "decisions",
        Column("entry", Whole, primary_key=True),
        Column("decision_id", Words, nullable=False, unique=True),
        Column("model", Words, nullable=False),
        Column("at_unix", Float, nullable=False),
        Column("until_unix", Float, nullable=False),
        Column("times", Whole, nullable=False),
        Column("before", Whole, nullable=False),
        Column("replicas", Whole, nullable=False),
        Column("is_hold", Boolean, nullable=False),
        Column("binding", Words, nullable=False),
        Column("reason", Words, nullable=False),
        Column("inputs", Words, nullable=False),
        Column("rejected", Words, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("decisions_of_model", "decisions", ["model", "entry"])
