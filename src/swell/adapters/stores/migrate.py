"""Brings a database to this version's schema. Imports alembic, so it is itself imported only when needed."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from swell.errors import StateError

SCRIPTS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, place: str | Path) -> None:
    """Upgrade inside the caller's transaction. Raises StateError for a database of a newer Swell."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    current = MigrationContext.configure(connection).get_current_revision()
    try:
        if current is not None:
            ScriptDirectory.from_config(config).get_revision(current)
    except CommandError as error:
        raise StateError(
            f"the store {place} was written by a newer Swell (schema {current}); install that version, or a newer one"
        ) from error
    command.upgrade(config, "head")
