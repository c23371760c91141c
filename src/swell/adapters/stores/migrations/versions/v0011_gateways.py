"""On whose machine a spool lies, so that nobody forgets another's."""

from alembic import op
from sqlalchemy import Column, text

from swell.adapters.stores.columns import Whole, Words

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the columns. What is there lies on the server's own machine."""
    op.add_column("spool_positions", Column("gateway", Words, nullable=False, server_default=text("''")))
    op.add_column("spool_positions", Column("given_up", Whole, nullable=False, server_default=text("0")))
