"""What is particular to the encrypted SQLite file: encryption, migration, durability settings, errors."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from openers import epochs_of_two
from sqlalchemy import Connection, Engine, insert, inspect
from sqlcipher3 import dbapi2

from swell.adapters.stores import migrate, open_store, schema
from swell.adapters.stores import sqlite_database as database
from swell.adapters.stores.sqlite import SqliteStore
from swell.adapters.stores.sqlite_database import SqliteDatabase, has_wal_reset_bug
from swell.errors import AtCapacity, StateError, SwellError
from swell.state.records import AuditEntry, SpoolPosition, UsageChange, UsageFilter
from swell.testing.store_suite import audit_entry, key_record, usage_change

KEY = bytes(range(32))
MARKER = "marker-4f1d"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "swell.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(SqliteDatabase(path, KEY))
    yield store
    store.close()


def connect(path: Path, timeout: float = 0.0) -> dbapi2.Connection:
    """A raw connection, as another program's."""
    connection = dbapi2.connect(str(path), timeout=timeout, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA key = \"x'{KEY.hex()}'\"")
    return connection


def test_nothing_readable_reaches_the_disk(path: Path, store: SqliteStore) -> None:
    store.insert_key(key_record(name=MARKER), audit_entry(reason=MARKER))
    store.apply_usage([usage_change("a", "pair", model=MARKER)], SpoolPosition("s", 1, 1))
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["swell.db", "swell.db-shm", "swell.db-wal"]
    for file in files:
        content = file.read_bytes()
        assert MARKER.encode() not in content
        assert b"SQLite format" not in content
        assert file.stat().st_mode & 0o777 == 0o600


def test_commits_are_durable_and_the_log_is_used(store: SqliteStore) -> None:
    with store._database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA recursive_triggers").scalar_one() == 1


def test_everything_is_there_after_reopening(path: Path, store: SqliteStore) -> None:
    store.insert_key(key_record(), audit_entry())
    assert store.next_epoch() == 1
    store.close()
    again = open_store(path, KEY)
    assert again.get_key("abc") == key_record()
    assert again.next_epoch() == 2
    again.close()


@pytest.mark.parametrize("key", [bytes(32), bytes(31), b""])
def test_another_key_is_refused(path: Path, store: SqliteStore, key: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    store.close()
    with pytest.raises(StateError, match="key"):
        open_store(path, key)
    assert capfd.readouterr().err == ""


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"notes to self\n" * 1000)
    with pytest.raises(StateError, match="cannot be read with this store key") as caught:
        open_store(path, KEY)
    assert isinstance(caught.value.__cause__, dbapi2.DatabaseError)
    assert path.read_bytes() == b"notes to self\n" * 1000


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="No such file"):
        open_store(tmp_path / "nowhere" / "swell.db", KEY)


def test_a_newer_schema_is_refused(path: Path, store: SqliteStore) -> None:
    store.close()
    with connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StateError, match="newer Swell"):
        open_store(path, KEY)


def test_a_locked_store_is_waited_for_with_a_bound_and_works_afterwards(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.05)
    store = open_store(path, KEY)
    other = connect(path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(AtCapacity, match="locked") as caught:
        store.next_epoch()
    assert caught.value.retry_after_seconds > 0
    assert store.list_keys() == [], "reading does not wait for another process's writing"
    other.execute("ROLLBACK")
    assert store.next_epoch() == 1
    other.close()
    store.close()


def test_a_full_disk_changes_nothing_and_passes(store: SqliteStore) -> None:
    with store._database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
    rows = [usage_change(f"r{number:06d}", "pair") for number in range(2000)]
    with pytest.raises(AtCapacity, match="full"):
        store.apply_usage(rows, SpoolPosition("s", 1, 99))
    assert store.spool_position("s") is None
    assert store.total_usage(UsageFilter()) == []
    with store._database.reading() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    store.apply_usage(rows, SpoolPosition("s", 1, 99))
    assert store.total_usage(UsageFilter())[0].requests == 2000


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET principal = 'nobody'",
        "DELETE FROM audit",
        "REPLACE INTO audit SELECT entry, 0, 'nobody', action, subject, detail FROM audit",
    ],
)
def test_the_audit_log_can_only_grow(store: SqliteStore, statement: str) -> None:
    store.append_audit(audit_entry())
    with pytest.raises(StateError, match="can only grow"), store._database.writing() as connection:
        connection.exec_driver_sql(statement)
    assert store.list_audit(10) == [audit_entry()]


def test_an_act_that_cannot_be_audited_is_not_done(store: SqliteStore) -> None:
    store.insert_key(key_record(), audit_entry())
    with store._database.writing() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    with pytest.raises(StateError, match="refused"):
        store.revoke_key("abc", 1.0, AuditEntry(at_unix=1.0, principal="ops", action="key.revoke", subject="abc"))
    assert store.get_key("abc") == key_record()


def test_the_store_may_be_used_from_another_thread(store: SqliteStore) -> None:
    epochs: list[int] = []
    thread = threading.Thread(target=lambda: epochs.append(store.next_epoch()))
    thread.start()
    thread.join()
    assert [*epochs, store.next_epoch()] == [1, 2]


def test_errors_do_not_carry_what_was_stored(store: SqliteStore) -> None:
    store.insert_key(key_record(digest=MARKER.encode()), audit_entry())
    with pytest.raises(SwellError) as caught:
        store.insert_key(key_record(digest=MARKER.encode()), audit_entry())
    assert MARKER not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    ("version", "is_refused"),
    [
        ((3, 6, 23), True),
        ((3, 7, 0), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 4), False),
    ],
)
def test_sqlite_versions_that_lose_writes_are_refused(version: tuple[int, int, int], is_refused: bool) -> None:
    assert has_wal_reset_bug(version) is is_refused


def test_the_code_knows_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_migrating_makes_the_tables_that_the_code_knows(store: SqliteStore, tmp_path: Path) -> None:
    fresh = database._make_engine(tmp_path / "fresh.db", KEY)
    with fresh.begin() as connection:
        schema.metadata.create_all(connection)
        expected = _describe(connection)
    fresh.dispose()
    with store._database.reading() as connection:
        assert _describe(connection) == expected


def test_a_ledger_from_before_cached_tokens_has_none_and_its_sums_go_on(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with _disposed(database._make_engine(path, KEY)) as engine, engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate.SCRIPTS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0009")
        connection.execute(insert(schema.usage), _old(usage_change("old", "pair")))
        connection.execute(insert(schema.counters), {"name": "rolled_until_unix_ms", "value": 3_600_000})
        sums = _old(usage_change("old", "pair")) | {"start_unix_ms": 0, "requests": 1}
        names = [name for column in schema.usage_hours.c if (name := column.name) != "cached_tokens"]
        connection.execute(insert(schema.usage_hours), {name: sums[name] for name in names})
    store = open_store(path, KEY)
    store.apply_usage([usage_change("new", "pair", reserved_at_unix_ms=3_600_001)], SpoolPosition("spool1", 1, 1))
    assert {row.request_id: row.cached_tokens for row in store.list_usage(UsageFilter(), 9)} == {"old": 0, "new": 3}
    for _ in range(2):
        [whole] = store.group_usage(UsageFilter())
        assert (whole.requests, whole.prompt_tokens, whole.cached_tokens) == (2, 14, 3)
        while store.roll_usage(2 * 86_400_000):
            pass
    store.close()


@contextmanager
def _disposed(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.dispose()


def _old(change: UsageChange) -> dict[str, object]:
    """A row as it was before there were cached tokens."""
    return {name: value for name, value in change._asdict().items() if name != "cached_tokens"}


def _describe(connection: Connection) -> dict[str, object]:
    inspector = inspect(connection)
    definitions = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'index'").all()
    return {
        "indexes": {name: " ".join(sql.split()) for name, sql in definitions if sql},
        **{
            table: (
                sorted((str(c["name"]), str(c["type"]), bool(c["nullable"])) for c in inspector.get_columns(table)),
                inspector.get_pk_constraint(table)["constrained_columns"],
            )
            for table in inspector.get_table_names()
            if table != "alembic_version"
        },
    }


def test_a_migrated_store_opens_without_alembic(path: Path, store: SqliteStore) -> None:
    store.close()
    script = (
        "import sys; from pathlib import Path; from swell.adapters.stores import open_store; "
        f"open_store(Path({str(path)!r}), bytes(range(32))).close(); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


def test_two_processes_may_open_a_new_store_at_once(path: Path) -> None:
    said = epochs_of_two(
        "from pathlib import Path; from swell.adapters.stores import open_store; "
        f"s = open_store(Path({str(path)!r}), bytes(range(32)))"
    )
    assert said == ["1", "2"]
